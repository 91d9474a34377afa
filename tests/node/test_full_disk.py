"""A daemon whose disk is really full, in virtual time: what it says, votes, and does afterwards."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node.daemon import DISK_SECONDS
from node.rpc.client import RequestRefused, send_request
from node.rpc.codec import Status
from protocol.consensus.effects import State
from protocol.wire.encoding import Document
from tests.node.test_daemon import Scene, running, solo
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.support import fixtures
from tests.support.small_disk import SmallDisk, small_disk

FULL = "the disk with the data folder is full: free space on it; this node goes on by itself then"


def play(tmp_path: Path, test: Callable[[Scene, SmallDisk], Awaitable[None]]) -> None:
    """Run a test with a node whose journal is on a small disk; its outputs are elsewhere."""

    async def main() -> None:
        with small_disk(tmp_path / "disk") as disk:
            async with running(tmp_path, solo(), database=disk.folder / "node.sqlite") as scene:
                await test(scene, disk)

    virtual_loop.run(main)


def fill(scene: Scene, disk: SmallDisk) -> None:
    """Fill the disk, and the write-ahead log to its end, as the node itself would."""
    disk.fill()
    with contextlib.closing(sqlite3.connect(disk.folder / "node.sqlite")) as other:
        for nonce in range(10_000):
            try:
                with other:
                    other.execute("INSERT INTO salts VALUES (?, 0, ?)", (str(nonce), "ab" * 1000))
            except sqlite3.OperationalError:
                return
    raise AssertionError("the disk is not full")


def abstentions(payloads: list[bytes]) -> list[str]:
    bodies = [json.loads(payload)["body"] for payload in payloads]
    return [body["reason"] for body in bodies if body["type"] == "abstain"]


def test_an_execution_that_cannot_be_journalled_is_an_abstention_for_no_space(
    tmp_path: Path,
) -> None:
    async def test(scene: Scene, disk: SmallDisk) -> None:
        recorder = Recorder()
        other = await scene.connect(recorder)
        task = scene.submit()
        with capture_logs() as entries:
            await asyncio.sleep(9.95)
            fill(scene, disk)
            assert scene.journal.fault is None
            await asyncio.sleep(2)  # the execution ends in the meantime, and its write fails
            assert abstentions(recorder.payloads) == ["no-space"]
            assert scene.journal.entries(task.id)[-1].type == "abstain"
            assert scene.state(task) is State.INCONCLUSIVE
            request = fixtures.hello_request(scene.net.id)
            answer = await send_request(other, scene.coordinator.me, "hello", request)
            assert (answer["ready"], list(answer["reasons"])) == (False, [FULL])
            await asyncio.sleep(60)
        errors = [entry for entry in entries if entry["log_level"] == "error"]
        assert [(e["event"], e["reason"]) for e in errors] == [("journal cannot be written", FULL)]

    play(tmp_path, test)


def test_a_node_goes_on_by_itself_when_its_disk_has_space_again(tmp_path: Path) -> None:
    async def test(scene: Scene, disk: SmallDisk) -> None:
        fill(scene, disk)
        await asyncio.sleep(DISK_SECONDS)
        assert not (await scene.hello())["ready"]
        disk.free()
        with capture_logs() as entries:
            await asyncio.sleep(DISK_SECONDS)
            answer = await scene.hello()
        assert (answer["ready"], answer["reasons"]) == (True, [])
        assert [entry["event"] for entry in entries].count("journal can be written again") == 1
        task = scene.submit()
        await asyncio.sleep(30)
        assert scene.state(task) is State.AGREED

    play(tmp_path, test)


def test_tasks_that_wait_when_the_disk_fills_are_not_executed(tmp_path: Path) -> None:
    async def test(scene: Scene, disk: SmallDisk) -> None:
        recorder = await scene.listen()
        tasks = [scene.submit(nonce=nonce) for nonce in range(3)]
        await asyncio.sleep(1)
        fill(scene, disk)
        await asyncio.sleep(12)  # the first one ends after 10 s, and each takes as long
        assert abstentions(recorder.payloads) == ["no-space"] * 3
        assert {scene.state(task) for task in tasks} == {State.INCONCLUSIVE}

    play(tmp_path, test)


def test_a_task_that_comes_while_the_disk_is_full_is_abstained_from_at_once(tmp_path: Path) -> None:
    async def test(scene: Scene, disk: SmallDisk) -> None:
        recorder = await scene.listen()
        fill(scene, disk)
        await asyncio.sleep(DISK_SECONDS)
        scene.node.on_gossip(fixtures.peer(1), fixtures.task(scene.net))
        await asyncio.sleep(1)
        assert abstentions(recorder.payloads) == ["no-space"]

    play(tmp_path, test)


def test_a_client_is_refused_while_the_disk_is_full(tmp_path: Path) -> None:
    async def test(scene: Scene, disk: SmallDisk) -> None:
        client = await scene.connect(Recorder())
        fill(scene, disk)
        await asyncio.sleep(DISK_SECONDS)
        request: Document = {"task": fixtures.task(scene.net).envelope.document(), "blobs": []}
        with pytest.raises(RequestRefused, match="is full: free space") as refused:
            await send_request(client, scene.coordinator.me, "submit", request)
        assert refused.value.status is Status.BUSY
        await client.stop()

    play(tmp_path, test)
