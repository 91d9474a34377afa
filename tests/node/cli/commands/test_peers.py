"""Who can be reached, beside what a node holds them to have voted."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from node.cli.commands import peers
from node.cli.exit_codes import Exit, Failure
from node.client.nodes import HelloAnswer
from node.storage.database import open_database
from node.storage.ledger import Ledger
from node.storage.reader import DATABASE
from protocol.consensus.conduct import Conduct, VoteOutcome
from protocol.wire.encoding import canonical
from tests.node.cli.conftest import Helium
from tests.support import fixtures

NET = fixtures.network()
READY, ASLEEP, AWAY = (fixtures.peer(index) for index in range(3))
ADDRESS = f"/ip4/127.0.0.1/tcp/9/p2p/{READY}"
SERVED = (fixtures.CLASS,)
MODELS = {fixtures.CLASS: (fixtures.MODEL,)}
ANSWERS = [
    HelloAnswer(READY, "helium/2", SERVED, True, (), MODELS),
    HelloAnswer(ASLEEP, "helium/2", SERVED, False, ("starting",), {}),
]
TASKS = ("0" * 64, "1" * 64)


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """The command's flags, with a client that has the answers `ANSWERS`."""

    async def query_nodes() -> list[HelloAnswer]:
        return ANSWERS

    def run_with_client(target: Any, action: Callable[[Any], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            return await action(
                SimpleNamespace(network=NET, query_nodes=query_nodes, foreign_nodes={})
            )

        return asyncio.run(main())

    monkeypatch.setattr(peers, "run_with_client", run_with_client)
    (tmp_path / "network.json").write_bytes(canonical(NET.document))
    return "--network", tmp_path / "network.json", "--peer", ADDRESS


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A running node's data folder."""
    (tmp_path / "node").mkdir()
    database = open_database(tmp_path / "node" / DATABASE, NET.id)
    ledger = Ledger(database)
    for task in TASKS:
        with database.transaction():
            ledger.put_conduct(
                task,
                [
                    Conduct(0, READY, VoteOutcome.AGREED),
                    Conduct(0, AWAY, VoteOutcome.DISSENTED),
                ],
            )
    yield tmp_path / "node"
    database.close()


def test_without_a_data_folder_no_record_is_shown(
    helium: Helium, flags: tuple[object, ...]
) -> None:
    done = helium("peers", *flags, "--json")
    assert done.exit_code == 0, done.stderr
    entries = json.loads(done.stdout)["peers"]
    assert {entry["peer"]: entry["ready"] for entry in entries} == {READY: True, ASLEEP: False}
    assert all(entry["standing"] is None and entry["reached"] for entry in entries)
    assert done.stderr == ""


def test_records_of_unreached_peers_are_shown(
    helium: Helium, flags: tuple[object, ...], folder: Path
) -> None:
    done = helium("peers", *flags, "--data-dir", folder, "--json")
    assert done.exit_code == 0, done.stderr
    entries = {entry["peer"]: entry for entry in json.loads(done.stdout)["peers"]}
    assert entries[READY]["standing"] == {c: 2 * (c == "agreed") for c in VoteOutcome}
    assert entries[AWAY]["standing"]["dissented"] == 2
    assert (entries[AWAY]["reached"], entries[AWAY]["ready"]) == (False, False)
    assert entries[ASLEEP]["standing"] is None


def test_records_are_shown_as_lines(
    helium: Helium, flags: tuple[object, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIUM_DATA_DIR", str(folder))
    lines = helium("peers", *flags).stdout.splitlines()
    assert any(READY in line and line.endswith("(agreed 2)") for line in lines)
    assert any(AWAY in line and "not reached  (dissented 2)" in line for line in lines)
    assert any(ASLEEP in line and line.endswith("not ready: starting") for line in lines)


def test_a_named_folder_without_a_database_is_a_usage_error(
    helium: Helium, flags: tuple[object, ...], tmp_path: Path
) -> None:
    done = helium("peers", *flags, "--data-dir", tmp_path / "none")
    assert done.exit_code == 2
    assert "HELIUM_DATA_DIR" in done.stderr


def test_a_default_folder_of_another_network_is_skipped(
    helium: Helium, flags: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(tmp_path / DATABASE, "f" * 16).close()
    monkeypatch.setenv("HELIUM_DATA_DIR", str(tmp_path))
    done = helium("peers", *flags, "--json")
    assert done.exit_code == 0
    assert "voting records are not shown" in done.stderr


def test_no_ready_node_exits_with_code_3(
    helium: Helium, flags: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.node.cli.commands.test_peers.ANSWERS", ANSWERS[1:])
    assert helium("peers", *flags).exit_code == 3


def test_without_a_named_node_records_are_shown(
    helium: Helium, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "network.json").write_bytes(canonical(NET.document))
    done = helium("peers", "--network", tmp_path / "network.json", "--data-dir", folder, "--json")
    assert done.exit_code == 0, done.stderr
    entries = {entry["peer"]: entry for entry in json.loads(done.stdout)["peers"]}
    assert entries[AWAY]["standing"]["dissented"] == 2
    assert not any(entry["reached"] for entry in entries.values())
    assert "none was asked" in done.stderr


def test_a_folder_without_records_is_shown_as_empty(helium: Helium, tmp_path: Path) -> None:
    (tmp_path / "network.json").write_bytes(canonical(NET.document))
    (tmp_path / "fresh").mkdir()
    open_database(tmp_path / "fresh" / DATABASE, NET.id).close()
    flags = ("--network", tmp_path / "network.json", "--data-dir", tmp_path / "fresh", "--json")
    done = helium("peers", *flags)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["peers"] == []
    assert "none was asked" in done.stderr


def fail_run_with_client(monkeypatch: pytest.MonkeyPatch, failure: Failure) -> None:
    def run_with_client(target: Any, action: Any) -> Any:
        raise failure

    monkeypatch.setattr(peers, "run_with_client", run_with_client)


def test_records_are_shown_if_no_node_answers(
    helium: Helium, flags: tuple[object, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_run_with_client(monkeypatch, Failure(Exit.NO_NODE, "no node answered"))
    done = helium("peers", *flags, "--data-dir", folder)
    assert done.exit_code == 3
    assert "no node answered" in done.stderr
    assert any(AWAY in line and "(dissented 2)" in line for line in done.stdout.splitlines())


def test_other_failures_are_raised(
    helium: Helium, flags: tuple[object, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_run_with_client(monkeypatch, Failure(Exit.UNVERIFIED, "a lie"))
    done = helium("peers", *flags, "--data-dir", folder)
    assert (done.exit_code, done.stdout) == (6, "")


def test_neither_node_nor_record_is_a_usage_error(
    helium: Helium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIUM_DATA_DIR", str(tmp_path / "none"))
    (tmp_path / "network.json").write_bytes(canonical(NET.document))
    done = helium("peers", "--network", tmp_path / "network.json")
    assert done.exit_code == 2
    assert "no node is named" in done.stderr
