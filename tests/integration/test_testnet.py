"""`scripts/testnet` as a user runs it, without the set-up."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node.cli.exit_codes import Exit
from tests.integration.conftest import ROOT, SECONDS, task


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task()))
    return path


def _command(out: Path, *arguments: object) -> list[str]:
    flags = ["--out", str(out), *map(str, arguments)]
    return [sys.executable, "-P", "-m", "scripts.testnet_tool", *flags]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _testnet(out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(out, *arguments),
        env=_environment(),
        cwd=out.parent,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def _remaining_processes(out: Path) -> list[str]:
    """Return the processes that still use the folder."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            folder = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(out) in command or folder.startswith(str(out)):
            commands.append(command)
    return commands


def test_one_liar_is_outvoted_and_reported(tmp_path: Path, file: Path) -> None:
    out = tmp_path / "out"
    done = _testnet(out, "--nodes", 3, "--liars", 1, "--task", file, "--json")
    assert done.returncode == Exit.OK, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    [liar] = document["liars"]
    assert document["state"] == "agreed"
    assert [vote["peer"] for vote in document["votes"] if vote["dissent"]] == [liar]
    assert len(document["votes"]) == 3
    assert liar not in document["signers"]
    assert Path(document["certificate"]).is_file()
    assert Path(document["audio"][0]["path"]).is_file()
    assert _remaining_processes(out) == []


def test_sigterm_stops_all_processes(tmp_path: Path, file: Path) -> None:
    """SIGTERM ends the script as Ctrl-C does."""
    out = tmp_path / "out"
    command = _command(out, "--nodes", 2, "--task", file)
    with subprocess.Popen(
        command, env=_environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        assert started.stderr is not None
        for line in started.stderr:
            if line.startswith("starting the nodes"):
                break
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=SECONDS)
    assert started.returncode == Exit.TERMINATED
    assert _remaining_processes(out) == []


def test_folder_with_other_files_is_not_touched(tmp_path: Path, file: Path) -> None:
    done = _testnet(tmp_path, "--task", file)
    assert done.returncode == Exit.USAGE
    assert "holds other files" in done.stderr
    assert file.is_file()
