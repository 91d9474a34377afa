"""The client, connected to nodes of which some refuse, lie or disconnect."""

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import schemas
from node.client.arguments import InvalidArgument
from node.client.client import CONNECT_SECONDS, READY_SECONDS, Client
from node.client.nodes import SLOW_SECONDS, SUBMIT_TO, NoNodeReachable, TaskRejected
from node.client.result import check_file
from node.client.submission import GenerationFailed, choose_class
from node.client.withdrawal import MIN_NODES, WITHDRAWAL_SECONDS, WithdrawalNotShown
from node.rpc import codec as rpc_codec
from node.rpc.client import send_request
from node.rpc.codec import ProtocolViolation, Status, answer, refuse
from node.sync.blob_download import BlobUnavailable
from node.sync.first_answers import PATIENCE_SECONDS
from node.sync.task_tracker import NoAgreement, UnknownTask
from node.transport.interface import Stream, ValidationResult, topics
from protocol.consensus.certificate import verify
from protocol.consensus.committee import committees
from protocol.errors import Rejected, Rejection
from protocol.manifest import blobs_of
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.encoding import Json, canonical, document_hash
from protocol.wire.messages import Message, Task, Withdraw
from protocol.work import tokens_blob
from tests.node.sync.test_task_tracker import FORGERIES, Scripted, certify
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.simulation.network import run_network
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport
from tests.support.songs import wav

NET = fixtures.network()
TASK = fixtures.task(NET, deadline=60)
COMMITTEE = committees(NET, TASK)[0]
# Asks for two outputs.
PAIR = fixtures.task(NET, deadline=60, generation_config={"num_return_sequences": 2})
STEREO = np.random.default_rng(1).uniform(-1, 1, (300, 2)).astype("<f4")
MONO = np.random.default_rng(2).uniform(-1, 1, (200, 1)).astype("<f4")


def outcome_of(*audios: Any, **changes: Any) -> dict[str, Any]:
    outputs = []
    for audio in audios:
        sha256 = hashlib.sha256(audio.tobytes()).hexdigest()
        entry = {
            "media": "audio/f32",
            "sampling_rate": 32_000,
            "frames": audio.shape[0],
            "channels": audio.shape[1],
            "sha256": sha256,
            "size": audio.nbytes,
            "chunks": [sha256],
        }
        outputs.append(entry | changes)
    return {"result": {"outputs": outputs}}


@dataclass
class Fake(Scripted):
    """A node that answers hello, accepts tasks and serves blobs as its fields say."""

    network: str = NET.id
    ready: bool = True
    reasons: list[str] = field(default_factory=list)
    refusal: tuple[Status, str, str] | None = None
    vanishes: bool = False  # in the middle of a submission
    stalls: bool = False  # never answers a submission
    task_id: str = ""  # that it answers with instead of the right one
    blobs: dict[str, bytes] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    interruptions: int = 0  # how often it goes away instead of serving a blob

    async def serve(self, protocol: str, stream: Stream) -> None:
        name = protocol.rpartition("/")[2]
        if name in ("task", "watch") or not self.answers or self.silent:
            await super().serve(protocol, stream)
            return
        request = await rpc_codec.read_document(stream, f"{name}-request", rpc_codec.REQUEST_LIMIT)
        self.asked.append(name)
        await {"hello": self.hello, "submit": self.submit, "blob": self.blob}[name](request, stream)

    async def hello(self, request: Any, stream: Stream) -> None:
        document = fixtures.hello_answer(
            self.network,
            agent="fake",
            classes=[fixtures.CLASS],
            ready=self.ready,
            reasons=list(self.reasons),
        )
        await answer(stream, document)

    async def submit(self, request: Any, stream: Stream) -> None:
        if self.stalls:
            await asyncio.Event().wait()
        elif self.vanishes:
            await stream.reset()
        elif self.refusal is not None:
            await refuse(stream, *self.refusal)
        else:
            task = codec.decode(canonical(request["task"]), self.network)
            assert isinstance(task, Task)
            self.accepted.append(task.id)
            committee: list[Json] = [*committees(NET, task)[0]]
            await answer(stream, {"task": self.task_id or task.id, "committee": committee})

    async def blob(self, request: Any, stream: Stream) -> None:
        payload = self.blobs.get(request["sha256"])
        if self.interruptions:
            self.interruptions -= 1
            await stream.reset()
            return
        if payload is None:
            await refuse(stream, Status.UNAVAILABLE, "unknown-blob", "")
            return
        await answer(stream, {"size": len(payload)})
        await stream.write(payload[request["offset"] :])


@asynccontextmanager
async def connected(fakes: Sequence[Fake], net: Network = NET) -> AsyncIterator[Client]:
    medium = MemoryNetwork(random.Random(1))
    servers = [MemoryTransport(medium, fixtures.peer(index)) for index in range(len(fakes))]
    protocols = [rpc_codec.protocol_id(name) for name in rpc_codec.REQUESTS]
    for server, fake in zip(servers, fakes, strict=True):
        recorder = Recorder(fake.serve)
        joined: Sequence[str] = ()
        if isinstance(fake, Member):
            joined = topics(net.id)
            recorder.validate = fake.hear  # type: ignore[method-assign]
        await server.start(recorder, joined, protocols)
    try:
        async with Client.connect(
            net,
            [server.addresses[0] for server in servers],
            key=fixtures.key(1000),
            transport=MemoryTransport(medium, fixtures.peer(1000)),
            clock=virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START),
            entropy=random.Random(2).randbytes,
        ) as client:
            yield client
    finally:
        for server in servers:
            await server.stop()


def with_client(
    *fakes: Fake, test: Callable[[Client], Awaitable[None]], net: Network = NET
) -> None:
    async def main() -> None:
        async with connected(fakes, net) as client:
            await test(client)

    virtual_loop.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


async def submit(client: Client) -> str:
    return (await client.submit("text-to-music", fixtures.args())).id


# Connecting


def unreachable(addresses: Sequence[str]) -> tuple[BaseException | None, float]:
    async def main() -> tuple[BaseException | None, float]:
        medium = MemoryNetwork(random.Random(1))
        transport = MemoryTransport(medium, fixtures.peer(1000))
        try:
            async with Client.connect(NET, addresses, transport=transport):
                return None, now()
        except Exception as error:
            return error, now()
        finally:
            assert medium.transport(fixtures.peer(1000)) is None, "the transport was stopped"

    error, seconds = virtual_loop.run(main)
    assert error is None or isinstance(error, BaseException)
    return error, float(seconds)


def test_an_unreachable_node_raises_after_the_timeout() -> None:
    address = f"/memory/0/p2p/{fixtures.peer(0)}"
    error, seconds = unreachable([address])
    assert isinstance(error, NoNodeReachable)
    assert address in str(error)
    assert seconds == pytest.approx(CONNECT_SECONDS, abs=0.5)


def test_no_addresses_reach_no_node() -> None:
    error, _ = unreachable([])
    assert isinstance(error, NoNodeReachable)


@pytest.mark.parametrize("address", ["nonsense", "/ip4/127.0.0.1/tcp/4001"])
def test_an_address_without_a_peer_id_is_named(address: str) -> None:
    error, _ = unreachable([address])
    assert isinstance(error, ValueError | NoNodeReachable)
    assert address in str(error)


def test_slow_nodes_are_not_waited_for_long() -> None:
    async def main() -> None:
        medium = MemoryNetwork(random.Random(1))
        server = MemoryTransport(medium, fixtures.peer(0))
        await server.start(Recorder(Fake().serve), (), [rpc_codec.protocol_id("hello")])
        addresses = [f"/memory/0/p2p/{fixtures.peer(index)}" for index in range(3)]
        transport = MemoryTransport(medium, fixtures.peer(1000))
        async with Client.connect(NET, addresses, transport=transport) as client:
            assert now() < 5
            assert [g.peer for g in await client.query_nodes()] == [fixtures.peer(0)]
        await server.stop()

    virtual_loop.run(main)


def test_two_addresses_of_one_node_are_not_waited_for() -> None:
    async def main() -> None:
        medium = MemoryNetwork(random.Random(1))
        server = MemoryTransport(medium, fixtures.peer(0))
        await server.start(Recorder(Fake().serve), (), [rpc_codec.protocol_id("hello")])
        addresses = [f"/memory/{number}/p2p/{fixtures.peer(0)}" for number in range(2)]
        transport = MemoryTransport(medium, fixtures.peer(1000))
        async with Client.connect(NET, addresses, transport=transport):
            assert now() < 1
        await server.stop()

    virtual_loop.run(main)


def test_a_network_document_in_bytes_is_validated() -> None:
    async def main() -> None:
        transport = MemoryTransport(MemoryNetwork(random.Random(1)), fixtures.peer(1000))
        with pytest.raises(Rejected):
            async with Client.connect(b"{}", [], transport=transport):
                pass
        with pytest.raises(NoNodeReachable):
            async with Client.connect(canonical(NET.document), [], transport=transport):
                pass

    virtual_loop.run(main)


def test_a_client_serves_hello_alone() -> None:
    """A node cuts no peer off for that (specification 7.1)."""

    async def main() -> None:
        async with run_network(1, NET) as world, world.client() as client:
            await client.submit("text-to-music", fixtures.args())
            await asyncio.sleep(60)  # the nodes gossip, and ask for its feed
            assert not world.medium.failures
            daemon = world.nodes[0].node
            assert daemon is not None
            node = daemon._transport
            assert client.transport.peer in node.peers()
            greeting = await send_request(
                node, client.transport.peer, "hello", fixtures.hello_request(NET.id)
            )
            assert (greeting["network"], greeting["classes"]) == (NET.id, [])
            assert (greeting["ready"], greeting["models"]) == (False, {})
            with pytest.raises(ConnectionError):
                await node.open(client.transport.peer, rpc_codec.protocol_id("feed"))

    virtual_loop.run(main)


# Hello


def test_only_nodes_of_this_network_are_returned() -> None:
    async def test(client: Client) -> None:
        answers = await client.query_nodes()
        assert [(g.peer, g.ready, g.reasons) for g in answers] == sorted(
            [(fixtures.peer(0), True, ()), (fixtures.peer(3), False, ("self-test: x",))]
        )
        assert answers[0].classes == (fixtures.CLASS,)

    fakes = [
        Fake(),
        Fake(network="f" * 16),
        Fake(answers=False),
        Fake(ready=False, reasons=["self-test: x"]),
    ]
    with_client(*fakes, test=test)


@pytest.mark.parametrize("prefix", [TASK.id, TASK.id[:8]])
def test_nodes_of_another_network_are_not_asked_for_a_task(prefix: str) -> None:
    """They may have one whose id begins so, and its votes would not be valid here."""
    fake = Fake(network="f" * 64)

    async def test(client: Client) -> None:
        with pytest.raises(NoNodeReachable) as refused:
            await client.find_task(prefix)
        assert str(refused.value) == (
            f"the document is of network {NET.id[:16]}.., and other networks answer:"
            f" {fixtures.peer(0)} of network {'f' * 16}..; check --network and --peer"
        )
        assert fake.asked == ["hello"]

    with_client(fake, test=test)


# Making a task


def test_a_task_of_a_kind_that_its_model_does_not_serve_is_told_what_it_takes() -> None:
    document = fixtures.network_document()
    document["models"].append(
        {**document["models"][0], "id": fixtures.PIANO, "tasks": ["pop2piano"], "limits": {}}
    )
    net = Network.of(document)

    async def test(client: Client) -> None:
        for kind, model, takes in (
            (
                "text-to-music",
                fixtures.PIANO,
                "takes songs in args.audio (pop2piano), not a prompt",
            ),
            (
                "pop2piano",
                fixtures.MODEL,
                "takes a prompt (text-to-music), not songs in args.audio",
            ),
        ):
            with pytest.raises(Rejected, match=re.escape(takes)) as refused:
                client.sign_task(kind, {"model": model, "seed": 1})
            assert refused.value.reason is Rejection.UNSUPPORTED_KIND

    with_client(Fake(network=net.id), test=test, net=net)


def test_the_default_deadline_is_within_the_networks_maximum() -> None:
    async def test(client: Client) -> None:
        assert client.sign_task("text-to-music", fixtures.args()).deadline == 100
        assert client.sign_task("text-to-music", fixtures.args(), deadline=7).deadline == 7
        with pytest.raises(Rejected) as refused:
            client.sign_task("text-to-music", fixtures.args(), deadline=101)
        assert refused.value.reason is Rejection.OVER_LIMIT

    net = fixtures.network(max_deadline_seconds=100)
    with_client(Fake(network=net.id), test=test, net=net)


def test_a_default_that_the_model_lacks_is_refused_before_any_node_is_asked() -> None:
    document = fixtures.network_document()
    limits = {"composers": ["composer2"]}
    piano = {"id": fixtures.PIANO, "tasks": ["pop2piano"], "limits": limits}
    document["models"].append({**document["models"][0], **piano})
    net = Network.of(document)
    args: dict[str, Any] = {"model": fixtures.PIANO, "seed": 1}
    fake = Fake(network=net.id)

    async def test(client: Client) -> None:
        for default in ({}, {"composer": None}):
            with pytest.raises(Rejected, match=r"'composer1'.* it has composer2") as refused:
                await client.submit("pop2piano", {**args, **default}, audio=[wav(9_000)])
            assert refused.value.reason is Rejection.OVER_LIMIT
        assert "submit" not in fake.asked
        submission = await client.submit(
            "pop2piano", {**args, "composer": "composer2"}, audio=[wav(9_000)]
        )
        assert fake.accepted == [submission.id]

    with_client(fake, test=test, net=net)


def test_the_default_deadline_leaves_time_for_attempts_and_queues() -> None:
    document = fixtures.network_document(attempt_seconds=200)
    document["models"].append({**document["models"][0], "id": "slow", "attempt_seconds": 900})
    net = Network.of(document)

    async def test(client: Client) -> None:
        def deadline_of(model: str) -> int:
            return client.sign_task("text-to-music", fixtures.args(model=model)).deadline

        assert deadline_of(fixtures.MODEL) == 3 * 200 + 600
        assert deadline_of("slow") == 3 * 900 + 600

    with_client(Fake(network=net.id), test=test, net=net)


def chosen(change: Callable[[Any], object], kind: str = "text-to-music", **args: Any) -> str:
    """Return the class that a task gets in a helium network that was changed."""
    document = fixtures.helium_document()
    change(document)
    args = fixtures.args(**args) if kind == "text-to-music" else fixtures.piano_args(b"a", **args)
    return choose_class(Network.of(document), kind, args["model"])


def nothing(document: Any) -> None:
    pass


def test_class_of_a_model_with_replay_is_the_engines() -> None:
    assert chosen(nothing) == fixtures.HELIUM
    assert chosen(nothing, "pop2piano") == fixtures.HELIUM_PIANO


def test_class_of_a_model_without_replay_is_not_the_engines() -> None:
    assert chosen(nothing, model=fixtures.UNREPLAYED) == fixtures.CLASS


def test_only_class_that_runs_the_kind_is_chosen() -> None:
    def pianos(document: Any) -> None:
        document["classes"][fixtures.CLASS]["task"] = "pop2piano"

    assert chosen(pianos, model=fixtures.UNREPLAYED) == fixtures.HELIUM


def test_class_without_members_is_not_chosen() -> None:
    def emptied(document: Any) -> None:
        for member in document["roster"]:
            member["classes"].remove(fixtures.HELIUM)

    assert chosen(emptied) == fixtures.CLASS


def test_only_class_is_chosen_whatever_it_runs() -> None:
    """The node's answer then says what is wrong with the task."""
    document = fixtures.network_document()
    document["classes"][fixtures.CLASS]["task"] = "pop2piano"
    net = Network.of(document)
    assert choose_class(net, "text-to-music", fixtures.MODEL) == fixtures.CLASS


def test_one_of_several_classes_of_the_engine_has_to_be_named() -> None:
    def second(document: Any) -> None:
        document["classes"]["helium-2"] = {**document["classes"][fixtures.HELIUM], "arithmetic": 2}
        document["roster"][0]["classes"].append("helium-2")

    with pytest.raises(Rejected, match="class: choose one of cpu, helium, helium-2"):
        chosen(second)
    assert chosen(second, model=fixtures.UNREPLAYED) == fixtures.CLASS


def test_class_of_an_unlisted_model_is_not_the_engines() -> None:
    assert chosen(nothing, model="no/such") == fixtures.CLASS


def test_the_class_is_optional_if_the_network_has_one() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(Rejected, match="choose one of cpu, gpu") as refused:
            client.sign_task("text-to-music", fixtures.args())
        assert refused.value.reason is Rejection.UNKNOWN_CLASS
        assert (
            client.sign_task("text-to-music", fixtures.args(), compute_class="cpu").compute_class
            == "cpu"
        )

    document = fixtures.network_document()
    document["classes"]["gpu"] = {"device": "cuda"}
    document["roster"][0]["classes"].append("gpu")
    net = Network.of(document)
    with_client(Fake(network=net.id), test=test, net=net)


@pytest.mark.parametrize(
    ("kind", "args", "field"),
    [
        ("text-to-music", fixtures.args(seed=-1), "args.seed"),
        ("text-to-music", fixtures.args(prompt=""), "args.prompt"),
        ("text-to-music", fixtures.args(model="nobody/knows"), "args.model"),
        (
            "text-to-music",
            fixtures.args(generation_config={"max_new_tokens": 9999}),
            "max_new_tokens",
        ),
        ("juggling", fixtures.args(), "kind"),
    ],
)
def test_an_invalid_task_is_rejected_before_it_is_sent(
    kind: str, args: dict[str, Any], field: str
) -> None:
    fake = Fake()

    async def test(client: Client) -> None:
        with pytest.raises(Rejected, match=field):
            await client.submit(kind, args)
        assert fake.asked == []

    with_client(fake, test=test)


def test_seconds_set_the_number_of_tokens() -> None:
    async def test(client: Client) -> None:
        submission = await client.submit("text-to-music", fixtures.args(), seconds=8)
        task = submission.tracker.task
        assert task is not None
        assert task.args["generation_config"] == {"max_new_tokens": 403}
        with pytest.raises(ValueError, match="at most 30 s"):
            await client.submit("text-to-music", fixtures.args(), seconds=30.5)

    document = fixtures.network_document()
    document["models"][0]["limits"] |= {"frame_rate": 50, "delay": 3}
    net = Network.of(document)
    with_client(Fake(network=net.id), test=test, net=net)


def test_equal_arguments_make_different_tasks() -> None:
    async def test(client: Client) -> None:
        ids = {client.sign_task("text-to-music", fixtures.args()).id for _ in range(10)}
        assert len(ids) == 10

    with_client(Fake(), test=test)


# Submitting

BUSY = (Status.BUSY, "busy", "1000 tasks are open here")
INVALID = (Status.INVALID, "created-ahead", "created: 100 s ahead")
OTHERS: dict[str, dict[str, Any]] = {
    "busy": {"refusal": BUSY},
    "refusing": {"refusal": INVALID},
    "vanishing": {"vanishes": True},
    "lying about the id": {"task_id": "0" * 64},
    "not ready": {"ready": False},
    "of another network": {"network": "f" * 16},
    "mute": {"answers": False},
    "silent": {"silent": True},
    "silent once asked to submit": {"stalls": True},
}


def test_a_task_is_submitted_to_two_nodes() -> None:
    fakes = [Fake() for _ in range(4)]

    async def test(client: Client) -> None:
        task = await submit(client)
        assert sorted(fake.accepted for fake in fakes) == [[], [], [task], [task]]
        assert SUBMIT_TO == 2

    with_client(*fakes, test=test)


@pytest.mark.parametrize("flaws", OTHERS.values(), ids=list(OTHERS))
def test_the_task_goes_to_the_next_node_if_one_does_not_accept(flaws: dict[str, Any]) -> None:
    for place in range(3):  # whatever the position of the accepting node
        fakes = [Fake(**flaws) for _ in range(3)]
        fakes[place] = Fake()

        async def test(client: Client, willing: Fake = fakes[place]) -> None:
            assert willing.accepted == [await submit(client)]

        with_client(*fakes, test=test)


def test_silent_strangers_do_not_hold_up_a_submission() -> None:
    """Of six nodes one accepts. Some never answer hello, and others no submission."""
    strangers = [Fake(silent=True), Fake(stalls=True), Fake(silent=True), Fake(stalls=True)]
    fake = Fake()

    async def test(client: Client) -> None:
        start = now()
        assert fake.accepted == [await submit(client)]
        assert now() - start < PATIENCE_SECONDS + 3 * SLOW_SECONDS

    with_client(*strangers, fake, Fake(silent=True), test=test)


def test_nodes_are_asked_in_random_order() -> None:
    """No place in the list of peers is safe: over some tasks every node is asked."""
    fakes = [Fake() for _ in range(4)]

    async def test(client: Client) -> None:
        for _ in range(20):
            await submit(client)
        counts = [len(fake.accepted) for fake in fakes]
        assert sum(counts) == 20 * SUBMIT_TO
        assert min(counts) > 3, counts

    with_client(*fakes, test=test)


def test_inputs_are_uploaded_to_no_more_nodes_than_needed() -> None:
    net, song = fixtures.piano_network(), wav(100)
    fakes = [Fake(network=net.id) for _ in range(4)]

    async def test(client: Client) -> None:
        args = fixtures.piano_args()
        await client.submit("pop2piano", args, audio=[song])
        assert sum(fake.asked.count("submit") for fake in fakes) == SUBMIT_TO

    with_client(*fakes, test=test, net=net)


# Finding


@dataclass
class Feeding(Fake):
    """A node with a feed of this task, among many other envelopes."""

    feed: list[Any] = field(default_factory=list)

    async def serve(self, protocol: str, stream: Stream) -> None:
        by_id = {document_hash("envelope", document): document for document in self.feed}
        if protocol.endswith("/envelopes"):
            asked: Any = await rpc_codec.read_document(stream, "envelopes-request", 16_384)
            self.asked.append("envelopes")
            await answer(stream, {"envelopes": [by_id[i] for i in asked["ids"]], "gone": []})
            return
        if not protocol.endswith("/feed"):
            await super().serve(protocol, stream)
            return
        request: Any = await rpc_codec.read_document(stream, "feed-request", 4096)
        self.asked.append("feed")
        start = request["cursor"] if request["feed"] == "f" else 0
        page = tuple(by_id)[start : start + min(request["limit"], 200)]
        await answer(stream, {"feed": "f", "cursor": start + len(page), "ids": page})


def test_a_task_is_found_by_the_beginning_of_its_id() -> None:
    votes: list[Any] = [fixtures.abstain(NET, TASK, p).envelope.document() for p in NET.roster]
    many = [{**vote, "signature": f"{n:086}"} for n in range(300) for vote in votes]
    old = [TASK.envelope.document(), *many]
    fake = Feeding(feed=old)

    async def test(client: Client) -> None:
        assert await client.find_task(TASK.id) == TASK.id
        assert fake.asked.count("feed") == 0
        assert await client.find_task(TASK.id[:8]) == TASK.id
        assert fake.asked.count("feed") < 60
        with pytest.raises(UnknownTask, match="begins with 0000000000"):
            await client.find_task("0" * 10)
        with pytest.raises(InvalidArgument, match="no task id"):
            await client.find_task(TASK.id[:7])

    with_client(Fake(), fake, test=test)


# Withdrawing


@dataclass
class Member(Fake):
    """A node that hears of withdrawals, and shows them some seconds later."""

    seconds: float = 0.0

    def hear(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        withdrawal = codec.decode(payload, self.network)
        assert isinstance(withdrawal, Withdraw)
        assert topic == topics(NET.id)[1]
        self.asked.append("withdraw")
        envelopes = [*self.envelopes, withdrawal.envelope.document()]
        loop = asyncio.get_running_loop()
        loop.call_later(self.seconds, lambda: self.say(envelopes=envelopes))
        return ValidationResult.IGNORE, None


def test_a_withdrawal_is_awaited_until_two_nodes_show_it() -> None:
    assert MIN_NODES == 2
    members = [Member(), Member(seconds=5.0), Member(seconds=1e6)]

    async def test(client: Client) -> None:
        assert await client.cancel(TASK.id) == {fixtures.peer(0), fixtures.peer(1)}
        assert 5 <= now() < 5 + 3 * PATIENCE_SECONDS
        withdrawal = codec.decode(canonical(members[1].envelopes[-1]), NET.id)
        assert isinstance(withdrawal, Withdraw)
        assert (withdrawal.task, withdrawal.signer) == (TASK.id, fixtures.peer(1000))

    with_client(*members, test=test)


def test_one_node_is_enough_if_no_other_is_connected() -> None:
    async def test(client: Client) -> None:
        assert await client.cancel(TASK.id) == {fixtures.peer(0)}
        assert now() < WITHDRAWAL_SECONDS

    with_client(Member(), test=test)


def test_one_node_is_enough_if_no_other_answers_in_time() -> None:
    async def test(client: Client) -> None:
        assert await client.cancel(TASK.id) == {fixtures.peer(0)}
        assert WITHDRAWAL_SECONDS <= now() < WITHDRAWAL_SECONDS + 3 * PATIENCE_SECONDS

    with_client(Member(), Fake(silent=True), test=test)


def test_the_echo_of_one_node_is_no_success_while_others_answer() -> None:
    """It may lie: publishing goes on."""
    liar, honest = Member(), Member(seconds=1e6)

    async def test(client: Client) -> None:
        published: list[float] = []
        publish = client.transport.publish

        async def count(topic: str, payload: bytes) -> None:
            published.append(now())
            await publish(topic, payload)

        client.transport.publish = count  # type: ignore[method-assign]
        with pytest.raises(WithdrawalNotShown, match="only 1 of the 2 nodes that answer shows"):
            await client.cancel(TASK.id)
        assert WITHDRAWAL_SECONDS <= now() < WITHDRAWAL_SECONDS + 5
        assert published[-1] >= WITHDRAWAL_SECONDS - 1

    with_client(liar, honest, test=test)


def test_a_withdrawal_that_no_node_shows_is_no_success() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(
            WithdrawalNotShown, match=r"none of the 1 nodes .* may not have arrived"
        ):
            await client.cancel(TASK.id)
        assert WITHDRAWAL_SECONDS <= now() < WITHDRAWAL_SECONDS + 5

    with_client(Member(seconds=1e6), test=test)


def test_nodes_that_turn_silent_do_not_prolong_a_withdrawal() -> None:
    """A request to a silent node takes longer than the withdrawal."""
    member = Member(seconds=1e6)

    async def test(client: Client) -> None:
        asyncio.get_running_loop().call_later(1.0, lambda: member.say(silent=True))
        with pytest.raises(WithdrawalNotShown):
            await client.cancel(TASK.id)
        assert WITHDRAWAL_SECONDS <= now() < WITHDRAWAL_SECONDS + 5

    with_client(member, test=test)


def test_only_the_requester_can_cancel() -> None:
    task = fixtures.task(NET, deadline=60, requester=1001)
    member = Member(envelopes=[task.envelope.document()])

    async def test(client: Client) -> None:
        with pytest.raises(Rejected, match=fixtures.peer(1001)) as refused:
            await client.cancel(task.id)
        assert refused.value.reason is Rejection.NOT_THE_REQUESTER
        assert "withdraw" not in member.asked

    with_client(member, test=test)


def test_an_unknown_task_cannot_be_cancelled() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(UnknownTask):
            await client.cancel(TASK.id)

    with_client(Member(knows=False), test=test)


def test_a_refusal_by_all_nodes_has_its_reason() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(TaskRejected, match="created-ahead: created: 100 s") as refused:
            await submit(client)
        assert refused.value.reason == "created-ahead"

    with_client(Fake(refusal=BUSY), Fake(refusal=INVALID), Fake(vanishes=True), test=test)


def test_only_busy_nodes_raise_no_node_reachable() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(NoNodeReachable, match="busy: 1000 tasks are open here"):
            await submit(client)

    with_client(Fake(refusal=BUSY), Fake(refusal=BUSY), test=test)


def test_nodes_that_are_not_ready_say_why() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(NoNodeReachable, match=r"runtime: torch: ours 1, theirs 2") as refused:
            await submit(client)
        assert "no reason given" in str(refused.value)
        assert now() >= READY_SECONDS

    reasons = ["runtime: torch: ours 1, theirs 2"]
    with_client(Fake(ready=False, reasons=reasons), Fake(ready=False), test=test)


def test_a_submission_waits_for_a_node_that_becomes_ready() -> None:
    late = Fake(ready=False, reasons=["starting"])
    waits: list[str] = []

    async def test(client: Client) -> None:
        asyncio.get_running_loop().call_later(READY_SECONDS / 2, setattr, late, "ready", True)
        start = client.clock.now() - now()
        submission = await client.submit("text-to-music", fixtures.args(), on_wait=waits.append)
        assert late.accepted == [submission.id]
        assert READY_SECONDS / 2 <= now() < READY_SECONDS
        assert submission.tracker.task is not None
        waited = submission.tracker.task.created / 1000 - start
        assert waited >= READY_SECONDS / 2, "the wait does not count against the deadline"

    with_client(late, Fake(ready=False, reasons=["self-test: 1 of 2"]), test=test)
    assert len(waits) == 1, "the reasons are told once"
    assert "starting" in waits[0]
    assert "self-test: 1 of 2" in waits[0]


@pytest.mark.parametrize("flaw", ["vanishing", "mute", "of another network", "lying about the id"])
def test_no_remaining_node_raises_no_node_reachable(flaw: str) -> None:
    async def test(client: Client) -> None:
        with pytest.raises(NoNodeReachable):
            await submit(client)

    with_client(Fake(**OTHERS[flaw]), Fake(**OTHERS[flaw]), test=test)


def test_submit_waits_for_a_lost_connection() -> None:
    fake = Fake()

    async def test(client: Client) -> None:
        transport = client.transport
        assert isinstance(transport, MemoryTransport)
        transport.disconnect(fixtures.peer(0))
        assert not transport.peers()
        assert fake.accepted == [await submit(client)]

    with_client(fake, test=test)


# Results


def truth_of(outcome: dict[str, Any], task: Task = TASK) -> dict[str, Any]:
    return {
        "state": "agreed",
        "envelopes": [task.envelope.document()],
        "certificate": certify(NET, task, outcome).document,
    }


def blobs_by_hash(*audios: Any) -> dict[str, bytes]:
    return {hashlib.sha256(audio.tobytes()).hexdigest(): audio.tobytes() for audio in audios}


def test_a_result_has_the_certified_samples(tmp_path: Path) -> None:
    outcome = outcome_of(STEREO, MONO)

    async def test(client: Client) -> None:
        result = await client.follow(PAIR.id).result()
        assert result.audio.shape == (300, 2)
        assert result.sampling_rate == 32_000
        assert [w.audio.shape for w in result.waveforms] == [(300, 2), (200, 1)]
        for waveform, audio in zip(result.waveforms, (STEREO, MONO), strict=True):
            assert waveform.audio.tobytes() == audio.tobytes()
        for index, path in enumerate(result.write(tmp_path / "song.wav")):
            assert check_file(path, outcome) == index

    with_client(Fake(**truth_of(outcome, PAIR), blobs=blobs_by_hash(STEREO, MONO)), test=test)


TOKENS = tokens_blob(2, bytes((7, 0, 0, 0)) * 8)


def proven_truth() -> tuple[Network, Task, dict[str, Any], dict[str, bytes]]:
    """Return a network, a task that proves work, what nodes say of it, and their blobs."""
    net = Network.of(fixtures.helium_document())
    task = fixtures.task(net, compute_class=fixtures.HELIUM, deadline=60)
    outcome = outcome_of(STEREO)
    name = hashlib.sha256(TOKENS).hexdigest()
    outcome["result"]["outputs"][0]["tokens"] = {"sha256": name, "size": len(TOKENS)}
    outcome["work"] = "ab" * 32
    truth = {
        "state": "agreed",
        "envelopes": [task.envelope.document()],
        "certificate": certify(net, task, outcome).document,
        "network": net.id,
    }
    return net, task, truth, {**blobs_by_hash(STEREO), name: TOKENS}


def test_a_result_has_the_certified_tokens(tmp_path: Path) -> None:
    net, task, truth, blobs = proven_truth()

    async def test(client: Client) -> None:
        result = await client.follow(task.id).result()
        assert result.audio.tobytes() == STEREO.tobytes()
        assert result.tokens == (TOKENS,)
        written = result.write(tmp_path / "song.wav")
        assert [path.name for path in written] == ["song.wav", "song.wav.tokens"]
        assert written[1].read_bytes() == TOKENS

    with_client(Fake(**truth, blobs=blobs), test=test, net=net)


def test_wrong_tokens_are_fetched_from_another_node() -> None:
    net, task, truth, blobs = proven_truth()

    async def test(client: Client) -> None:
        assert (await client.follow(task.id).result()).tokens == (TOKENS,)

    name = hashlib.sha256(TOKENS).hexdigest()
    wrong = {**blobs, name: bytes(len(TOKENS))}
    fakes = [Fake(**truth, blobs=wrong), Fake(**truth, blobs=wrong), Fake(**truth, blobs=blobs)]
    with_client(*fakes, test=test, net=net)


def test_tokens_that_no_node_has_raise_blob_unavailable() -> None:
    net, task, truth, _ = proven_truth()

    async def test(client: Client) -> None:
        with pytest.raises(BlobUnavailable):
            await client.follow(task.id).result()

    with_client(Fake(**truth, blobs=blobs_by_hash(STEREO)), test=test, net=net)


def zeroed(blobs: dict[str, bytes]) -> dict[str, bytes]:
    return {name: bytes(len(payload)) for name, payload in blobs.items()}


def test_wrong_bytes_are_fetched_from_another_node() -> None:
    truth, blobs = truth_of(outcome_of(STEREO)), blobs_by_hash(STEREO)

    async def test(client: Client) -> None:
        result = await client.follow(TASK.id).result()
        assert result.audio.tobytes() == STEREO.tobytes()

    for place in range(4):
        fakes = [Fake(**truth, blobs=zeroed(blobs)) for _ in range(4)]
        fakes[place] = Fake(**truth, blobs=blobs)
        with_client(*fakes, test=test)


def test_only_wrong_bytes_raise_blob_unavailable() -> None:
    truth, blobs = truth_of(outcome_of(STEREO)), blobs_by_hash(STEREO)

    async def test(client: Client) -> None:
        with pytest.raises(BlobUnavailable, match="does not have its hash"):
            await client.follow(TASK.id).result()

    with_client(*(Fake(**truth, blobs=zeroed(blobs)) for _ in range(2)), Fake(**truth), test=test)


def test_the_only_node_with_the_bytes_is_retried() -> None:
    truth, blobs = truth_of(outcome_of(STEREO)), blobs_by_hash(STEREO)

    async def test(client: Client) -> None:
        result = await client.follow(TASK.id).result()
        assert result.audio.tobytes() == STEREO.tobytes()

    with_client(Fake(**truth, blobs=blobs, interruptions=2), Fake(**truth), test=test)


def test_signers_are_asked_for_the_bytes_first() -> None:
    signers = list(COMMITTEE[:2])
    certificate = certify(NET, TASK, outcome_of(STEREO), signers)
    fakes = [Fake(blobs=blobs_by_hash(STEREO)) for _ in range(4)]

    async def test(client: Client) -> None:
        await client.fetch(certificate)
        peers = [fixtures.peer(i) for i, fake in enumerate(fakes) if "blob" in fake.asked]
        assert len(peers) == 1
        assert peers[0] in signers

    with_client(*fakes, test=test)


def test_an_agreed_error_raises_with_its_certificate() -> None:
    outcome = {"error": "non-finite-output"}
    truth = truth_of(outcome) | {"state": "agreed-error"}

    async def test(client: Client) -> None:
        with pytest.raises(GenerationFailed, match="non-finite-output") as failed:
            await client.follow(TASK.id).result()
        assert failed.value.code == "non-finite-output"
        assert failed.value.certificate.outcome == outcome
        assert failed.value.details == ()
        assert str(failed.value) == (
            "the members agree that the task fails, non-finite-output: the model gave numbers that"
            " are no audio; choose another seed, dtype or prompt, and submit it again"
        )

    with_client(Fake(**truth), test=test)


def test_details_of_an_agreed_error_have_no_duplicates() -> None:
    outcome = {"error": "no-notes"}
    certificate = certify(NET, TASK, outcome, trace={"detail": "no beat"})
    fake = Fake(state="agreed-error", certificate=certificate.document)

    async def test(client: Client) -> None:
        with pytest.raises(GenerationFailed) as failed:
            await client.follow(TASK.id).result()
        assert failed.value.details == ("no beat",)
        assert str(failed.value) == (
            "the members agree that the task fails, no-notes: an input has no beat, or the model"
            " wrote no note (in a member's words: no beat); choose another song, composer or seed,"
            " and submit it again"
        )

    with_client(fake, test=test)


@pytest.mark.parametrize("code", schemas.load("outcome")["properties"]["error"]["enum"])
def test_every_agreed_error_says_what_to_do(code: str) -> None:
    certificate = certify(NET, TASK, {"error": code}, trace={})
    assert str(GenerationFailed(code, certificate)).endswith(", and submit it again")


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=list(FORGERIES))
def test_forged_certificates_give_no_result(forge: Callable[[], Any]) -> None:
    async def test(client: Client) -> None:
        with pytest.raises(NoAgreement):
            await client.follow(TASK.id).result()

    with_client(Fake(state="agreed", certificate=forge()), test=test)


def test_more_bytes_than_the_network_allows_make_no_certificate() -> None:
    net = fixtures.network(max_output_bytes=STEREO.nbytes)
    task = fixtures.task(net)
    small, large = certify(net, task, outcome_of(STEREO)), outcome_of(np.tile(STEREO, (2, 1)))
    with pytest.raises(Rejected, match="at most 2400"):
        verify(certify(net, task, large).document, net)
    fake = Fake(network=net.id, blobs=blobs_by_hash(STEREO))

    async def test(client: Client) -> None:
        assert len((await client.fetch(small)).waveforms) == 1
        fake.asked.clear()
        with pytest.raises(ProtocolViolation, match="the network allows 2400"):
            await client.fetch_blob(blobs_of(large)[0], [])
        assert fake.asked == []

    with_client(fake, test=test, net=net)


def test_progress_and_certificate_of_a_submission() -> None:
    truth = truth_of(outcome_of(STEREO))

    async def test(client: Client) -> None:
        submission = client.follow(TASK.id)
        states = [str(status.state) async for status in submission.tracker.watch()]
        assert states == ["agreed"]
        assert (await submission.tracker.certificate()).document == truth["certificate"]
        assert submission.tracker.settled is not None

    with_client(Fake(**truth), test=test)


def test_a_submitted_task_is_known_without_any_node() -> None:
    """The requester has its own task: nodes cannot hide it."""

    async def test(client: Client) -> None:
        submission = await client.submit("text-to-music", fixtures.args())
        assert isinstance(submission.tracker.task, Task)
        assert set(submission.tracker.committee) == set(NET.roster)

    with_client(Fake(), test=test)
