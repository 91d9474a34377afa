import json
import time
from pathlib import Path

import pytest

from node.cli.exit_codes import Exit
from node.storage.usage import USAGE_SECONDS, Usage, write_usage
from tests.node.cli.conftest import Helium


def cost(at: float, bytes_in: int | None = None) -> Usage:
    return Usage(at - 100.0, at, 2.5, bytes_in, bytes_in and 2 * bytes_in, 3, 4)


@pytest.mark.parametrize(("age", "is_running"), [(2.0, True), (3 * USAGE_SECONDS + 1, False)])
def test_status_without_a_task_says_what_the_node_costs(
    helium: Helium, tmp_path: Path, age: float, is_running: bool
) -> None:
    written = cost(time.time() - age, bytes_in=10)
    write_usage(tmp_path, written)
    result = helium("status", "--data-dir", tmp_path, "--json")
    assert result.exit_code == Exit.OK
    assert json.loads(result.output) == {**written.document(), "running": is_running}
    state = "running" if is_running else "stopped"
    assert helium("status", "--data-dir", tmp_path).output.splitlines() == [
        f"node       {state}; 100 s after its start, {age:.0f} s ago:",
        "processor  2.5 s, 25.0 ms a second; workers left out",
        "bytes      10 in, 20 out",
        "messages   3 new, 4 repeated",
    ]


def test_a_node_that_has_just_started_has_no_rate(helium: Helium, tmp_path: Path) -> None:
    now = time.time()
    write_usage(tmp_path, Usage(now - 0.1, now, 0.9, 0, 0, 0, 0))
    assert helium("status", "--data-dir", tmp_path).output.splitlines()[1:3] == [
        "processor  0.9 s; workers left out",
        "bytes      0 in, 0 out",
    ]


def test_bytes_that_are_not_counted_are_left_out(helium: Helium, tmp_path: Path) -> None:
    write_usage(tmp_path, cost(time.time()))
    assert "bytes" not in helium("status", "--data-dir", tmp_path).output


def test_without_a_task_and_without_a_node_status_says_what_to_name(
    helium: Helium, tmp_path: Path
) -> None:
    result = helium("status", "--data-dir", tmp_path)
    assert result.exit_code == Exit.USAGE
    assert "Name a task, or a node's data folder" in result.output
