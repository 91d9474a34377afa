"""A whole daemon in virtual time: results, hello, watchers, failures, shutdown, expiry."""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from executor.job import Execution, Job
from node.config.limits import Limits
from node.consensus.coordinator import RETRY_SECONDS, Coordinator
from node.daemon import (
    DROPPED_TASKS,
    EXPIRY_SECONDS,
    SCORE_SECONDS,
    USAGE_LOG_SECONDS,
    Node,
    Options,
    Parts,
)
from node.execution.fair_queue import QueuedTask
from node.execution.queue import Readiness
from node.rpc import codec as rpc_codec
from node.rpc.client import RequestRefused, send_request
from node.rpc.framing import write_frame
from node.storage.blobs import BlobStore
from node.storage.database import open_database
from node.storage.errors import DiskQuotaExceeded
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from node.storage.usage import USAGE_SECONDS, read_usage
from node.sync.blob_download import BlobDownloader
from node.transport.interface import ValidationResult, topics
from node.version import AGENT
from protocol.consensus.conduct import EQUIVOCATION_PENALTY, Conduct, VoteOutcome
from protocol.consensus.effects import State
from protocol.constants import KEEPING_SECONDS
from protocol.manifest import Blob
from protocol.network import Model, Network
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Message, Task
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.simulation.doubles import manifest
from tests.support import fixtures
from tests.support.blobs import store
from tests.support.journals import accepted
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

PAYLOAD = bytes((0, 0, 0, 0x3F)) * 100
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()


class Workshop:
    """An executor that writes real files; each job takes ten seconds."""

    max_together = 1

    def __init__(self, folder: Path) -> None:
        self.folder, self.closed = folder, False
        self.readiness = Readiness(True)
        self.raises: Exception | None = None
        self.trace: dict[str, Any] = {"seconds": 1}
        self.shares = [0.101, 0.104, 0.5]
        self.payloads = [PAYLOAD]
        self.altered = False
        self.tokens: bytes | None = None
        self.work: dict[str, Any] = {}

    async def start(self) -> Readiness:
        return self.readiness

    async def warm(self, model: Model) -> None:
        """Every model is warm at once."""

    def is_alive(self) -> bool:
        return True

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        for share in self.shares:
            progress(share)
        await asyncio.sleep(10)
        if self.raises is not None:
            raise self.raises
        paths = [self.folder / f"{job.task}-{i}.f32" for i in range(len(self.payloads))]
        for path, payload in zip(paths, self.payloads, strict=True):
            path.write_bytes(bytes(len(payload)) if self.altered else payload)
        outputs = [o for payload in self.payloads for o in manifest(payload)["outputs"]]
        if self.tokens is not None:
            sha256 = hashlib.sha256(self.tokens).hexdigest()
            outputs[0]["tokens"] = {"sha256": sha256, "size": len(self.tokens)}
            paths.insert(1, self.folder / f"{job.task}-0.tokens.f32")
            paths[1].write_bytes(self.tokens)
        outcome = {"result": {"outputs": outputs}, **self.work}
        return Execution(outcome, tuple(paths), self.trace)

    async def close(self) -> None:
        self.closed = True


@dataclass
class Scene:
    """A network of one member, and a running node: the member or one outside the roster."""

    net: Network
    node: Node
    journal: Journal
    ledger: Ledger
    blobs: BlobStore
    workshop: Workshop
    medium: MemoryNetwork
    coordinator: Coordinator
    running: asyncio.Task[None]

    def submit(self, **changes: Any) -> Task:
        task = fixtures.task(self.net, **changes)
        self.node._driver.act(partial(self.coordinator.submit, task))
        return task

    def state(self, task: Task) -> State | None:
        standing = self.journal.state(task.id)
        return None if standing is None else standing[0]

    async def listen(self) -> Recorder:
        """Connect another peer and return the recorder of its gossip."""
        recorder = Recorder()
        await self.connect(recorder)
        return recorder

    async def connect(self, recorder: Recorder) -> MemoryTransport:
        transport = MemoryTransport(self.medium, fixtures.peer(1000))
        await transport.start(recorder, topics(self.net.id), ())
        await transport.dial(f"/memory/0/p2p/{self.coordinator.me}")
        return transport

    async def hello(self) -> Any:
        """Return the node's answer to a hello. The client checks it against its schema."""
        other = await self.connect(Recorder())
        request = fixtures.hello_request(self.net.id)
        answer = await send_request(other, self.coordinator.me, "hello", request)
        await other.stop()
        return answer


def solo(**parameters: Any) -> Network:
    return fixtures.network(1, committee_size=1, **parameters)


@asynccontextmanager
async def running(
    folder: Path,
    net: Network,
    index: int = 0,
    prepare: Callable[[Workshop], None] | None = None,
    options: Options | None = None,
    quota: int | None = None,
    database: Path | str = ":memory:",
    start: float = fixtures.START,
) -> AsyncIterator[Scene]:
    clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), start)
    rng = random.Random(1)
    opened, blobs = open_database(database, net.id), BlobStore(folder / "blobs", quota)
    journal, ledger = Journal(opened), Ledger(opened)
    options = options or Options(models=(fixtures.MODEL,))
    key, max_open = fixtures.key(index), options.limits.max_open_tasks
    coordinator = Coordinator(net, key, journal, ledger, clock, rng.randbytes, max_open)
    medium, workshop = MemoryNetwork(rng), Workshop(folder)
    if prepare is not None:
        prepare(workshop)
    transport = MemoryTransport(medium, fixtures.peer(index))
    executors = {fixtures.CLASS: workshop} if index == 0 else {}
    parts = Parts(coordinator, journal, ledger, blobs, transport, executors, clock, rng)
    node = Node(parts, options)
    task = asyncio.create_task(node.run())
    await node.started.wait()
    await asyncio.sleep(0.1)
    try:
        yield Scene(net, node, journal, ledger, blobs, workshop, medium, coordinator, task)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, BaseExceptionGroup):
            await task
        opened.close()


Test = Callable[[Scene], Awaitable[None]]


def play(
    tmp_path: Path,
    test: Test,
    net: Network | None = None,
    index: int = 0,
    prepare: Callable[[Workshop], None] | None = None,
    limits: Limits | None = None,
) -> None:
    options = Options(models=(fixtures.MODEL,), limits=limits or Limits())

    async def main() -> None:
        async with running(tmp_path, net or solo(), index, prepare, options) as scene:
            await test(scene)

    virtual_loop.run(main)


def left_in(folder: Path) -> list[Path]:
    return list(folder.glob("*.f32"))


def content(scene: Scene) -> bytes:
    with scene.blobs.open(SHA256) as blob:
        return blob.read()


def test_the_topics_are_those_of_the_specification() -> None:
    assert topics("0123") == ("/helium/2/0123/tasks", "/helium/2/0123/votes")


def test_a_task_from_submission_to_certificate_and_blob(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        recorder = await scene.listen()
        task = scene.submit()
        assert scene.state(task) is State.EXECUTING
        await asyncio.sleep(30)
        assert scene.state(task) is State.AGREED
        assert content(scene) == PAYLOAD
        assert left_in(tmp_path) == [], "the blobs have taken the file over"
        tasks, votes = topics(scene.net.id)
        sent = accepted(scene.journal)
        assert [(topic, payload) for _, topic, payload in recorder.gossip] == [
            (tasks, sent[0]),
            (votes, sent[1]),
            (votes, sent[2]),
        ]
        assert scene.submit().id == task.id, "a repeat is answered alike"
        await asyncio.sleep(30)
        assert len(scene.journal.feed(0, 10)) == 3

    play(tmp_path, test)


def test_outputs_over_the_size_limit_give_an_agreed_error(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        task = scene.submit()
        await asyncio.sleep(30)
        assert scene.state(task) is State.AGREED_ERROR
        (certificate,) = scene.ledger.certificates(task.id)
        votes: Any = certificate["votes"]
        assert votes[0]["body"]["outcome"] == {"error": "generation-rejected"}
        detail = votes[0]["body"]["trace"]["detail"]
        assert f"have {len(PAYLOAD)} bytes, at most {len(PAYLOAD) - 1}" in detail
        assert left_in(tmp_path) == []
        assert not scene.blobs.has(SHA256)

    play(tmp_path, test, solo(max_output_bytes=len(PAYLOAD) - 1))
    play(tmp_path / "fits", accepted_here, solo(max_output_bytes=len(PAYLOAD)))


# Work

WORK = {"work": "ab" * 32}
TOKENS = bytes((1, 0, 0, 0)) * 2


def helium(**parameters: Any) -> Network:
    """A network of one member whose tasks prove work."""
    document = fixtures.network_document(1, committee_size=1, **parameters)
    document["classes"][fixtures.CLASS]["engine"] = "helium"
    document["models"][0]["replay"] = True
    return Network.of(document)


def test_tokens_are_kept_and_served_beside_their_output(tmp_path: Path) -> None:
    def prepare(workshop: Workshop) -> None:
        workshop.tokens, workshop.work = TOKENS, WORK

    async def test(scene: Scene) -> None:
        task = scene.submit()
        await asyncio.sleep(30)
        assert scene.state(task) is State.AGREED
        (certificate,) = scene.ledger.certificates(task.id)
        votes: Any = certificate["votes"]
        assert votes[0]["body"]["outcome"]["work"] == WORK["work"]
        sha256 = hashlib.sha256(TOKENS).hexdigest()
        assert content(scene) == PAYLOAD
        client = await scene.connect(Recorder())
        blob = Blob(sha256, len(TOKENS), ())
        downloader = BlobDownloader(client)
        assert await downloader.fetch(blob, [scene.coordinator.me]) == TOKENS
        assert left_in(tmp_path) == [], "the blobs have taken the files over"

    play(tmp_path, test, helium(), prepare=prepare)


@pytest.mark.parametrize(("tokens", "work"), [(None, {}), (None, WORK), (TOKENS, {})])
def test_an_execution_without_the_work_of_its_task_abstains(
    tokens: bytes | None, work: dict[str, Any], tmp_path: Path
) -> None:
    """No task can cause it, so it is a fault of this member's worker and no outcome."""

    def prepare(workshop: Workshop) -> None:
        workshop.tokens, workshop.work = tokens, work

    async def test(scene: Scene) -> None:
        task = scene.submit()
        await asyncio.sleep(30)
        *_, vote = scene.journal.entries(task.id)
        assert vote.type == "abstain"
        assert json.loads(vote.envelope.encode())["body"]["reason"] == "worker-died"
        assert left_in(tmp_path) == []

    play(tmp_path, test, helium(), prepare=prepare)


def test_work_that_no_task_asks_for_abstains(tmp_path: Path) -> None:
    def prepare(workshop: Workshop) -> None:
        workshop.tokens, workshop.work = TOKENS, WORK

    async def test(scene: Scene) -> None:
        task = scene.submit()
        await asyncio.sleep(30)
        assert scene.journal.entries(task.id)[-1].type == "abstain"

    play(tmp_path, test, prepare=prepare)


def test_tokens_count_towards_the_size_limit(tmp_path: Path) -> None:
    def prepare(workshop: Workshop) -> None:
        workshop.tokens, workshop.work = TOKENS, WORK

    async def test(scene: Scene) -> None:
        task = scene.submit()
        await asyncio.sleep(30)
        assert scene.state(task) is State.AGREED_ERROR
        assert left_in(tmp_path) == []

    limit = len(PAYLOAD) + len(TOKENS)
    play(tmp_path, test, helium(max_output_bytes=limit - 1), prepare=prepare)
    play(tmp_path / "fits", accepted_here, helium(max_output_bytes=limit), prepare=prepare)


def test_a_full_trace_is_cut_for_the_error_detail(tmp_path: Path) -> None:
    def prepare(workshop: Workshop) -> None:
        workshop.trace = {"tokens": [["0" * 16] * 430], "seconds": 1}
        assert 8_192 - len(canonical(workshop.trace)) < 64

    async def test(scene: Scene) -> None:
        task = scene.submit()
        await asyncio.sleep(30)
        assert scene.state(task) is State.AGREED_ERROR

    play(tmp_path, test, solo(max_output_bytes=1), prepare=prepare)


def test_the_size_limit_holds_for_all_outputs_together(tmp_path: Path) -> None:
    payloads = [PAYLOAD, bytes(len(PAYLOAD))]

    def prepare(workshop: Workshop) -> None:
        workshop.payloads = payloads

    async def test(scene: Scene) -> None:
        task = scene.submit(generation_config={"num_return_sequences": 2})
        await asyncio.sleep(30)
        limit = scene.net.parameters.max_output_bytes
        fits = limit >= 2 * len(PAYLOAD)
        assert scene.state(task) is (State.AGREED if fits else State.AGREED_ERROR)
        assert left_in(tmp_path) == []

    play(tmp_path, test, solo(max_output_bytes=2 * len(PAYLOAD) - 1), prepare=prepare)
    play(tmp_path / "fits", test, solo(max_output_bytes=2 * len(PAYLOAD)), prepare=prepare)


def test_another_number_of_outputs_than_asked_for_gives_an_agreed_error(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        task = scene.submit(generation_config={"num_return_sequences": 2})
        await asyncio.sleep(30)
        assert scene.state(task) is State.AGREED_ERROR
        assert left_in(tmp_path) == []

    play(tmp_path, test)


def test_an_output_with_a_wrong_hash_abstains(tmp_path: Path) -> None:
    """A compromised worker may write any file. The daemon must go on."""

    def prepare(workshop: Workshop) -> None:
        workshop.altered = True

    async def test(scene: Scene) -> None:
        task = scene.submit()
        await asyncio.sleep(30)
        assert scene.journal.entries(task.id)[-1].type == "abstain"
        assert not scene.blobs.has(SHA256)

    play(tmp_path, test, prepare=prepare)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_node_that_cannot_store_an_output_abstains(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    async def test(scene: Scene) -> None:
        monkeypatch.setattr(BlobStore, "import_file", full)
        recorder = await scene.listen()
        task = scene.submit()
        await asyncio.sleep(30)
        assert scene.state(task) is State.INCONCLUSIVE
        bodies = [json.loads(payload)["body"] for payload in recorder.payloads]
        assert [body["type"] for body in bodies] == ["task", "abstain"]
        assert bodies[1]["reason"] == "no-space"

    play(tmp_path, test)


async def accepted_here(scene: Scene) -> None:
    task = scene.submit()
    await asyncio.sleep(30)
    assert scene.state(task) is State.AGREED


# Hello


def test_the_hello_of_a_member_names_its_class(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        greeting = await scene.hello()
        assert greeting == {
            "network": scene.net.id,
            "agent": AGENT,
            "classes": [fixtures.CLASS],
            "ready": True,
            "reasons": [],
            "models": {fixtures.CLASS: [fixtures.MODEL]},
            "time": greeting["time"],
            "instance": greeting["instance"],
            "duplicate": False,
        }

    play(tmp_path, test)


def test_the_hello_of_a_listener_names_no_class(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        assert (await scene.hello())["classes"] == []
        task = scene.submit()
        await asyncio.sleep(30)
        assert scene.state(task) is State.WAITING, "it keeps the round and takes no part"

    play(tmp_path, test, index=5)


def test_long_reasons_are_cut_in_the_hello(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        greeting = await scene.hello()
        assert greeting["ready"] is False
        task = scene.submit()
        await asyncio.sleep(1)
        assert scene.journal.entries(task.id)[-1].type == "abstain"

    def prepare(workshop: Workshop) -> None:
        workshop.readiness = Readiness(False, ("self-test: " + "x" * 900, "runtime: torch"))

    play(tmp_path, test, prepare=prepare)


# Watchers


def test_watchers_see_progress_up_to_the_end(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        seen: list[float] = []
        task = scene.submit()

        async def watch() -> None:
            while True:
                event = scene.node._events.next_change(task.id)
                seen.append(scene.node._events.progress(task.id))
                await event.wait()

        watching = asyncio.create_task(watch())
        await asyncio.sleep(30)
        watching.cancel()
        assert seen[0] == 0.0
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
        assert 0.5 in seen

    play(tmp_path, test)


# Gossip and failures


def test_gossip_is_validated_by_its_topic(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        tasks, votes = topics(scene.net.id)
        payload = fixtures.task(scene.net).envelope.encode()
        result, message = scene.node.validate(tasks, payload)
        assert (result, message) == (ValidationResult.ACCEPT, fixtures.task(scene.net))
        assert scene.node.validate(votes, payload) == (ValidationResult.REJECT, None)

    play(tmp_path, test)


def test_gossip_that_expired_after_validation_is_dropped(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        stale = fixtures.task(scene.net, now=fixtures.START - 1000, deadline=60)
        scene.node.on_gossip(fixtures.peer(1), stale)
        await asyncio.sleep(0)
        assert scene.journal.feed(0, 10) == []
        assert not scene.running.done()

    play(tmp_path, test)


def test_what_a_node_costs_is_in_its_data_folder_and_in_the_log(tmp_path: Path) -> None:
    async def main() -> None:
        options = Options(usage_folder=tmp_path)
        async with running(tmp_path, solo(), options=options) as scene:
            payload = fixtures.task(scene.net).envelope.encode()
            for _ in range(3):
                result, message = scene.node.validate(topics(scene.net.id)[0], payload)
                if result is ValidationResult.ACCEPT and message is not None:
                    scene.node.on_gossip(fixtures.peer(1), message)
                await asyncio.sleep(0)
            scene.node._parts.traffic["bytes-in"] += 5
            with capture_logs() as lines:
                await asyncio.sleep(USAGE_LOG_SECONDS + USAGE_SECONDS)
            usage = read_usage(tmp_path)
            assert usage is not None
            assert usage.at - usage.started > USAGE_LOG_SECONDS
            assert usage.processor_seconds > 0
            assert (usage.bytes_in, usage.bytes_out) == (5, None)
            assert (usage.messages_new, usage.messages_repeated) == (1, 2)
            [line] = [line for line in lines if line["event"] == "usage"]
            assert (line["messages_new"], line["messages_repeated"]) == (1, 2)

    virtual_loop.run(main)


def test_a_failing_database_costs_a_step_and_not_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        def broken(*args: Any, **kwargs: Any) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        task = fixtures.task(scene.net)
        with monkeypatch.context() as patch:
            patch.setattr(scene.journal, "append", broken)
            scene.node.on_gossip(fixtures.peer(1), task)
            await asyncio.sleep(0)
        assert scene.journal.feed(0, 10) == []
        scene.node.on_gossip(fixtures.peer(1), task)
        await asyncio.sleep(5)
        with monkeypatch.context() as patch:
            patch.setattr(scene.journal, "append", broken)
            await asyncio.sleep(20)  # the execution ends in the meantime
        assert not scene.running.done()
        await asyncio.sleep(60)
        assert scene.state(fixtures.task(scene.net)) is State.AGREED

    play(tmp_path, test)


def test_gossip_that_comes_together_is_journalled_in_one_step_before_its_effects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        steps: list[str] = []
        scene.journal.on_accepted.append(lambda ids: steps.append(f"{len(ids)} durable"))
        add = scene.node._queues.add

        def note_queued(task: QueuedTask) -> Task | None:
            steps.append("queued")
            return add(task)

        monkeypatch.setattr(scene.node._queues, "add", note_queued)
        tasks = [fixtures.task(scene.net, nonce=nonce) for nonce in range(3)]
        stale = fixtures.task(scene.net, now=fixtures.START - 1000, deadline=60)
        for task in (tasks[0], stale, *tasks):  # the others are refused or known
            scene.node.on_gossip(fixtures.peer(1), task)
        assert steps == []
        await asyncio.sleep(0)
        assert steps == ["3 durable", *["queued"] * 3]

    play(tmp_path, test)


@pytest.mark.parametrize("failing", ["the second write", "the commit"])
def test_a_batch_that_the_disk_does_not_take_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    async def test(scene: Scene) -> None:
        tasks = [fixtures.task(scene.net, nonce=nonce) for nonce in range(2)]
        recorder, append = await scene.listen(), scene.journal.append
        error = sqlite3.OperationalError("disk I/O error")

        def second_fails(message: Message, at: float) -> None:
            if message is tasks[1]:
                raise error
            append(message, at)

        @contextmanager
        def commit_fails(connection: sqlite3.Connection) -> Iterator[None]:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
            raise error

        with monkeypatch.context() as patch:
            if failing == "the commit":
                patch.setattr("node.storage.database._transaction", commit_fails)
            else:
                patch.setattr(scene.journal, "append", second_fails)
            for task in tasks:
                scene.node.on_gossip(fixtures.peer(1), task)
            await asyncio.sleep(0)
        assert scene.journal.feed(0, 10) == []
        await asyncio.sleep(RETRY_SECONDS + 1)
        assert recorder.payloads == []
        for task in tasks:  # each is new, if it comes again
            scene.node.on_gossip(fixtures.peer(1), task)
        await asyncio.sleep(60)
        assert {scene.state(task) for task in tasks} == {State.AGREED}

    play(tmp_path, test)


def test_a_submission_that_the_disk_refused_does_not_stay_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def submit(scene: Scene, client: MemoryTransport) -> Any:
        task = fixtures.task(scene.net, seed=random.randrange(2**32))
        request: Document = {"task": task.envelope.document(), "blobs": []}
        return await send_request(client, scene.coordinator.me, "submit", request)

    async def test(scene: Scene) -> None:
        client = await scene.connect(Recorder())
        with monkeypatch.context() as patch:
            patch.setattr(scene.journal, "append", broken)
            with pytest.raises(RequestRefused, match="database"):
                await submit(scene, client)
        await asyncio.sleep(10)
        await submit(scene, client)
        await client.stop()

    play(tmp_path, test, limits=Limits(max_open_tasks=1))


# Shutdown


def test_a_stopped_node_closes_its_executor_and_transport(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.submit()
        await asyncio.sleep(1)
        scene.running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scene.running
        assert scene.workshop.closed
        assert scene.medium.transport(fixtures.peer(0)) is None

    play(tmp_path, test)


def test_an_unexpected_exception_of_the_executor_ends_the_node(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.submit()
        with pytest.raises(BaseExceptionGroup) as ended:
            await asyncio.wait_for(asyncio.shield(scene.running), 60)
        assert ended.group_contains(RuntimeError, match="a bug")
        assert scene.workshop.closed
        assert scene.medium.transport(fixtures.peer(0)) is None

    def prepare(workshop: Workshop) -> None:
        workshop.raises = RuntimeError("a bug")

    play(tmp_path, test, prepare=prepare)


def test_an_address_in_use_ends_the_node_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, solo()) as scene:
            transport = MemoryTransport(scene.medium, fixtures.peer(0))
            parts = Parts(
                scene.coordinator,
                scene.journal,
                scene.ledger,
                scene.blobs,
                transport,
                {fixtures.CLASS: scene.workshop},
                virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START),
                random.Random(1),
            )
            with pytest.raises(OSError, match="is running already"):
                await Node(parts, Options()).run()

    virtual_loop.run(main)


# Blobs and scores


def test_blobs_expire_after_the_configured_time(tmp_path: Path) -> None:
    day, kept = 86_400.0, BlobStore(tmp_path / "blobs")
    old, young = (store(kept, text) for text in (b"a", b"b"))
    for sha256, age in ((old, 31), (young, 29)):
        at = fixtures.START - age * day
        os.utime(kept.path(sha256), (at, at))

    async def main() -> None:
        async with running(tmp_path, solo(), options=Options(blob_seconds=30 * day)) as scene:
            assert (scene.blobs.has(old), scene.blobs.has(young)) == (False, True)
            await asyncio.sleep(day + 2 * EXPIRY_SECONDS)
            assert not scene.blobs.has(young)

    virtual_loop.run(main)


DAY = 86_400.0


def file_pages(scene: Scene) -> tuple[int, int]:
    """The pages of the database's file, and those among them that are free."""
    names = ("page_count", "freelist_count")
    rows = [scene.journal._db.execute(f"PRAGMA {name}").fetchone() for name in names]
    return rows[0][0], rows[1][0]


def dropped_later(tmp_path: Path, retention: float | None, days: float, count: int = 1) -> bool:
    """Whether a node that starts so many days later drops the envelopes of tasks; of all or none.

    What it accepts then stays, and so do certificates. Dropped envelopes leave free space.
    """
    options = Options(models=(fixtures.MODEL,), retention_seconds=retention)

    async def first() -> list[Task]:
        async with running(tmp_path, solo(), options=options, database=path) as scene:
            tasks = []
            for nonce in range(count):
                tasks.append(scene.submit(nonce=nonce, now=scene.coordinator.clock.now()))
                await asyncio.sleep(11)
            return tasks

    async def second() -> bool:
        start = fixtures.START + days * DAY
        changes: Any = {"options": options, "database": path, "start": start}
        async with running(tmp_path, solo(), **changes) as scene:
            young = scene.submit(nonce=1000, now=start)
            await asyncio.sleep(60)
            assert scene.journal.has_envelopes(young.id)
            assert all(scene.ledger.certificates(task.id) for task in tasks)
            (kept,) = {scene.journal.has_envelopes(task.id) for task in tasks}
            pages, free = file_pages(scene)
            assert kept == (free < pages // 4)
            return not kept

    path = tmp_path / "node.sqlite"
    tasks = virtual_loop.run(first)
    assert isinstance(tasks, list)
    return bool(virtual_loop.run(second))


def test_envelopes_are_dropped_after_the_configured_time(tmp_path: Path) -> None:
    """In several steps."""
    assert dropped_later(tmp_path, 5 * DAY, 5.1, 2 * DROPPED_TASKS + 1)


def test_envelopes_are_kept_until_then(tmp_path: Path) -> None:
    assert not dropped_later(tmp_path, 5 * DAY, 5)


@pytest.mark.parametrize(("days", "dropped"), [(2.0, False), (2.1, True)])
def test_envelopes_are_kept_for_two_days_at_least(
    tmp_path: Path, days: float, *, dropped: bool
) -> None:
    """After the deadline, which may be an hour and the skew of clocks away."""
    assert KEEPING_SECONDS == 2 * DAY
    assert dropped_later(tmp_path, 1.0, days, 20) is dropped


def test_envelopes_are_kept_by_default(tmp_path: Path) -> None:
    assert not dropped_later(tmp_path, None, 1000)


def test_own_outputs_are_stored_when_the_quota_is_used_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, solo(), quota=0) as scene:
            await accepted_here(scene)
            with pytest.raises(DiskQuotaExceeded):
                store(scene.blobs, b"a")

    virtual_loop.run(main)


def test_blobs_do_not_expire_by_default(tmp_path: Path) -> None:
    kept = store(BlobStore(tmp_path / "blobs"), b"a")
    os.utime(tmp_path / "blobs" / kept, (1.0, 1.0))

    async def test(scene: Scene) -> None:
        await asyncio.sleep(2 * EXPIRY_SECONDS)
        assert scene.blobs.has(kept)

    play(tmp_path, test)


def test_score_floors_follow_the_votes_of_peers(tmp_path: Path) -> None:
    liar, slow = fixtures.peer(1), fixtures.peer(2)

    async def test(scene: Scene) -> None:
        score_floors = scene.node._parts.score_floors
        assert score_floors == {}
        vote_outcomes = [Conduct(i, liar, VoteOutcome.EQUIVOCATED) for i in range(2)]
        scene.ledger.put_conduct("0" * 64, [*vote_outcomes, Conduct(0, slow, VoteOutcome.SILENT)])
        await asyncio.sleep(SCORE_SECONDS)
        assert score_floors == {liar: 2 * EQUIVOCATION_PENALTY, slow: 0.0}

    play(tmp_path, test)


def test_a_gossiped_task_that_the_policy_excludes_is_kept_but_not_executed(
    tmp_path: Path,
) -> None:
    options = Options(submitters=frozenset({fixtures.peer(1001)}))

    async def main() -> None:
        async with running(tmp_path, solo(), options=options) as scene:
            recorder = await scene.listen()
            task = fixtures.task(scene.net, requester=1000)
            scene.node.on_gossip(fixtures.peer(7), task)
            served = fixtures.task(scene.net, requester=1001, nonce=1)
            scene.node.on_gossip(fixtures.peer(7), served)
            await asyncio.sleep(30)
            assert scene.state(task) is State.INCONCLUSIVE
            assert scene.state(served) is State.AGREED
            reasons = [json.loads(payload)["body"].get("reason") for payload in recorder.payloads]
            assert "busy" in reasons
            assert scene.node.counts == {"tasks-unserved": 1}

    virtual_loop.run(main)


def test_the_peer_that_submits_or_forwards_a_task_is_its_source(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        peer, other = fixtures.peer(7), await scene.connect(Recorder())
        gossiped, submitted = (fixtures.task(scene.net, nonce=nonce) for nonce in (1, 2))
        scene.node.on_gossip(peer, gossiped)
        request: Document = {"task": submitted.envelope.document(), "blobs": []}
        await send_request(other, scene.coordinator.me, "submit", request)
        charged = [scene.coordinator.source(task.id) for task in (gossiped, submitted)]
        assert charged == [peer, other.peer]

    play(tmp_path, test)


def test_malformed_requests_are_answered_and_not_banned(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        other = MemoryTransport(scene.medium, fixtures.peer(1000))
        await other.start(Recorder(), (), ())
        await other.dial(f"/memory/0/p2p/{scene.coordinator.me}")
        for _ in range(int(Limits().ban_points) + 1):  # more than would ban a peer
            stream = await other.open(scene.coordinator.me, rpc_codec.protocol_id("hello"))
            await write_frame(stream, b"{")
            assert await stream.read_exactly(1) == bytes((rpc_codec.Status.INVALID,))
        assert other.peers() == {scene.coordinator.me}

    play(tmp_path, test)
