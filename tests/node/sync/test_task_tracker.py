"""One task through the answers of many nodes, of which some lie: only signatures are believed."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from node.rpc import codec as rpc_codec
from node.rpc.client import ANSWER_SECONDS
from node.rpc.codec import Status, answer, read_document, refuse
from node.rpc.framing import write_frame
from node.sync.first_answers import PATIENCE_SECONDS
from node.sync.task_tracker import (
    LATE_VOTE_SECONDS,
    MAX_INVALID,
    SILENT_NODE_SECONDS,
    UNKNOWN_TASK_SECONDS,
    NoAgreement,
    TaskTracker,
    UnknownTask,
    VoteSummary,
)
from node.transport.interface import Stream
from protocol.consensus.certificate import Certificate, assemble
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.network import Network
from protocol.wire import messages
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Task, Withdraw
from protocol.wire.signing import Envelope
from tests.node.transport.recorder import Recorder
from tests.simulation import virtual_loop
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

NET = fixtures.network()
TASK = fixtures.task(NET, deadline=60)
COMMITTEE = committees(NET, TASK)[0]
ASKER = fixtures.peer(1000)


def certify(
    net: Network = NET,
    task: Task = TASK,
    outcome: Document | None = None,
    signers: Sequence[str] | None = None,
    trace: Document | None = None,
) -> Certificate:
    certified_outcome = dict(fixtures.outcome() if outcome is None else outcome)
    chosen = committees(net, task)[0] if signers is None else signers
    commits = {member: fixtures.commitment_of(task, member, certified_outcome) for member in chosen}
    votes = [
        fixtures.reveal(net, task, member, commits, certified_outcome, trace=trace)
        for member in chosen
    ]
    return assemble(task, 0, votes, net)


@dataclass
class Scripted:
    """A node that says of the task what it was told to say."""

    state: str = "executing"
    attempt: int = 0
    envelopes: list[Any] = field(default_factory=lambda: [TASK.envelope.document()])
    certificate: Any = None
    knows: bool = True
    answers: bool = True
    silent: bool = False  # it takes the request and never says anything
    asked: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self, name, value)
        self.changed.set()
        self.changed = asyncio.Event()

    async def serve(self, protocol: str, stream: Stream) -> None:
        name = protocol.rpartition("/")[2]
        request = await read_document(stream, f"{name}-request")
        self.asked.append(name)
        if self.silent:
            await asyncio.Event().wait()
        elif not self.answers:
            await stream.reset()
        elif not self.knows:
            await refuse(stream, Status.INVALID, "unknown-task", "task: never heard of it")
        else:
            await {"task": self.task, "watch": self.watch}[name](request, stream)

    async def task(self, request: Any, stream: Stream) -> None:
        document: Document = {
            "state": self.state,
            "attempt": self.attempt,
            "envelopes": self.envelopes,
        }
        await answer(stream, {**document, "certificate": self.certificate})

    async def watch(self, request: Any, stream: Stream) -> None:
        await stream.write(b"\x00")
        while True:
            changed = self.changed
            frame: Document = {"state": self.state, "attempt": self.attempt, "progress": 0.5}
            await write_frame(stream, canonical(frame))
            if State(self.state).terminal:
                return
            await changed.wait()


Serve = Callable[[str, Stream], Awaitable[None]]


@asynccontextmanager
async def surrounded(nodes: Sequence[Serve]) -> AsyncIterator[MemoryTransport]:
    """A transport that is connected with scripted nodes, whose peer ids are the roster's."""
    medium = MemoryNetwork(random.Random(1))
    asker = MemoryTransport(medium, ASKER)
    await asker.start(Recorder(), (), ())
    protocols = [rpc_codec.protocol_id(name) for name in rpc_codec.REQUESTS]
    servers = [MemoryTransport(medium, fixtures.peer(index)) for index in range(len(nodes))]
    for server, node in zip(servers, nodes, strict=True):
        await server.start(Recorder(node), (), protocols)
        await asker.dial(server.addresses[0])
    try:
        yield asker
    finally:
        for transport in (asker, *servers):
            await transport.stop()


Test = Callable[[TaskTracker, float], Awaitable[None]]


def tracked(
    *nodes: Scripted,
    test: Callable[[TaskTracker], Awaitable[None]],
    known: Task | None = TASK,
) -> None:
    async def main() -> None:
        async with surrounded([node.serve for node in nodes]) as transport:
            clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START)
            await test(TaskTracker(NET, transport, clock, TASK.id, known))

    virtual_loop.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


async def expect(tracker: TaskTracker, certificate: Certificate) -> None:
    received = await tracker.certificate()
    assert received.document == certificate.document
    assert tracker.settled is received


def agreed(certificate: Certificate) -> dict[str, Any]:
    return {"state": "agreed", "certificate": certificate.document}


# The truth


@pytest.mark.parametrize("known", [TASK, None], ids=["own task", "followed"])
def test_valid_certificate_ends_the_task(known: Task | None) -> None:
    truth = certify()

    async def test(tracker: TaskTracker) -> None:
        await expect(tracker, truth)
        assert tracker.task is not None
        assert tracker.task.id == TASK.id
        assert now() < 2

    tracked(Scripted(**agreed(truth)), Scripted(), test=test, known=known)


def test_votes_of_several_nodes_give_a_certificate() -> None:
    """Each node knows one vote: only the observer has them all."""
    truth = certify(signers=COMMITTEE[:2])

    async def test(tracker: TaskTracker) -> None:
        await expect(tracker, truth)
        assert tracker.votes == tuple(
            VoteSummary(vote.signer, 0, vote.digest, None)
            for member in COMMITTEE
            for vote in truth.votes
            if vote.signer == member
        )

    nodes = [
        Scripted(envelopes=[TASK.envelope.document(), vote.envelope.document()])
        for vote in truth.votes
    ]
    tracked(*nodes, test=test)


def test_watch_yields_states_until_the_certificate() -> None:
    truth = certify()
    node = Scripted(state="waiting")

    async def test(tracker: TaskTracker) -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(40.0, lambda: node.say(state="committed"))
        loop.call_at(50.0, lambda: node.say(**agreed(truth)))
        seen = [(s.peer, str(s.state), s.progress) async for s in tracker.watch()]
        assert seen == [(fixtures.peer(0), s, 0.5) for s in ("waiting", "committed", "agreed")]
        assert 50 <= now() < 52
        assert tracker.settled is not None

    tracked(node, test=test)


def test_disconnected_node_is_asked_again() -> None:
    truth = certify()
    node = Scripted(answers=False)

    async def test(tracker: TaskTracker) -> None:
        asyncio.get_running_loop().call_at(5.0, lambda: node.say(answers=True, **agreed(truth)))
        await expect(tracker, truth)
        assert now() < 7

    tracked(node, test=test)


def test_busy_node_is_watched_with_backoff() -> None:
    node = Scripted()

    async def watch(request: Any, stream: Stream) -> None:
        await refuse(stream, Status.BUSY, "busy", "many watch already")

    async def test(tracker: TaskTracker) -> None:
        asyncio.get_running_loop().call_at(40.0, lambda: node.say(**agreed(certify())))
        await expect(tracker, certify())
        assert 40 <= now() < 46, "it learns of the end all the same"
        assert 10 < node.asked.count("watch") < 16

    node.watch = watch  # type: ignore[method-assign]
    tracked(node, test=test)


def test_node_too_busy_to_show_an_ended_task_is_polled_with_backoff() -> None:
    node = Scripted(**agreed(certify()))
    show = node.task

    async def task(request: Any, stream: Stream) -> None:
        if now() < 40:
            await refuse(stream, Status.BUSY, "busy", "many ask already")
        else:
            await show(request, stream)

    async def test(tracker: TaskTracker) -> None:
        await expect(tracker, certify())
        assert 40 <= now() < 46, "it learns of the end all the same"
        assert 20 < node.asked.count("task") < 32
        assert 10 < node.asked.count("watch") < 16

    node.task = task  # type: ignore[method-assign]
    tracked(node, test=test)


def test_abstention_is_a_vote() -> None:
    vote = fixtures.abstain(NET, TASK, COMMITTEE[1], "out-of-memory")

    async def test(tracker: TaskTracker) -> None:
        (status,) = await tracker.refresh()
        assert (status.state, status.progress) == (State.EXECUTING, 0.0)
        assert tracker.votes == (VoteSummary(COMMITTEE[1], 0, None, "out-of-memory"),)
        assert set(COMMITTEE) <= set(tracker.committee) == set(NET.roster)

    tracked(Scripted(envelopes=[vote.envelope.document()]), test=test)


def test_refresh_omits_nodes_that_do_not_answer() -> None:
    async def test(tracker: TaskTracker) -> None:
        assert [s.peer for s in await tracker.refresh()] == [fixtures.peer(1)]

    tracked(Scripted(answers=False), Scripted(), Scripted(knows=False), test=test)


def test_tracker_is_empty_until_a_node_shows_the_task() -> None:
    async def test(tracker: TaskTracker) -> None:
        assert tracker.task is None
        assert tracker.committee == ()
        assert tracker.votes == ()
        await tracker.refresh()
        assert tracker.task is not None

    tracked(Scripted(), test=test, known=None)


# Lies


def tampered() -> Document:
    """The other outcome, with signatures of the right one."""
    document: Any = certify(outcome=fixtures.outcome("forged")).document
    right: Any = certify().document
    votes = [
        {**vote, "signature": honest["signature"]}
        for vote, honest in zip(document["votes"], right["votes"], strict=True)
    ]
    return {**document, "votes": votes}


def too_few() -> Document:
    document: Any = certify(outcome=fixtures.outcome("forged")).document
    return {**document, "votes": document["votes"][:1]}


def by_strangers() -> Document:
    """Valid in a network of the forger's own making, and relabelled."""
    document: Any = certify(fixtures.network(3), fixtures.task(fixtures.network(3))).document
    return {**document, "network": NET.id}


FORGERIES: dict[str, Callable[[], Document]] = {
    "tampered": tampered,
    "too few votes": too_few,
    "another network": by_strangers,
    "another task": lambda: certify(task=fixtures.task(NET, nonce=1)).document,
    "another network's": lambda: (
        certify(fixtures.network(3), fixtures.task(fixtures.network(3))).document
    ),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=list(FORGERIES))
@pytest.mark.parametrize("known", [TASK, None], ids=["own task", "followed"])
def test_forged_certificate_is_rejected(forge: Callable[[], Document], known: Task | None) -> None:
    truth, honest = certify(), Scripted()

    async def test(tracker: TaskTracker) -> None:
        asyncio.get_running_loop().call_at(30.0, lambda: honest.say(**agreed(truth)))
        await expect(tracker, truth)
        assert 30 <= now() < 32

    tracked(Scripted(state="agreed", certificate=forge()), honest, test=test, known=known)


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=list(FORGERIES))
def test_forged_certificates_of_all_nodes_give_no_agreement(forge: Callable[[], Document]) -> None:
    async def test(tracker: TaskTracker) -> None:
        with pytest.raises(NoAgreement) as ended:
            await tracker.certificate()
        assert ended.value.state is State.EXPIRED
        assert ended.value.votes == ()
        assert now() == pytest.approx(TASK.deadline + LATE_VOTE_SECONDS, abs=1)

    forged = [Scripted(state="agreed", certificate=forge()) for _ in range(3)]
    tracked(*forged, test=test)


@pytest.mark.parametrize("claim", ["inconclusive", "expired", "agreed", "agreed-error"])
def test_one_nodes_claim_of_failure_is_ignored(claim: str) -> None:
    truth, honest = certify(), Scripted()

    async def test(tracker: TaskTracker) -> None:
        asyncio.get_running_loop().call_at(30.0, lambda: honest.say(**agreed(truth)))
        await expect(tracker, truth)
        assert 30 <= now() < 32

    tracked(Scripted(state=claim), honest, test=test)


@pytest.mark.parametrize("claim", ["inconclusive", "expired", "agreed", "agreed-error"])
def test_what_all_nodes_claim_without_signatures_ends_nothing(claim: str) -> None:
    async def test(tracker: TaskTracker) -> None:
        with pytest.raises(NoAgreement, match="no agreement: expired") as ended:
            await tracker.certificate()
        assert "the deadline passed; in attempt 0, of 3 members 3 did not vote; ask for" in str(
            ended.value
        )
        assert "ask for less, or give it a longer deadline" in str(ended.value)
        assert ended.value.state is State.EXPIRED
        assert now() == pytest.approx(TASK.deadline + LATE_VOTE_SECONDS, abs=1)

    tracked(*(Scripted(state=claim) for _ in range(3)), test=test)


def disagreement(attempts: int = 2) -> list[Any]:
    """Votes that leave no outcome possible: in attempt 0 three outcomes, then two abstentions."""
    reveals = [
        fixtures.reveal(NET, TASK, member, {}, fixtures.outcome(member)) for member in COMMITTEE
    ]
    abstentions = [fixtures.abstain(NET, TASK, member, "busy", 1) for member in COMMITTEE[:2]]
    return [vote.envelope.document() for vote in [*reveals, *abstentions][: 3 * attempts]]


@pytest.mark.parametrize("state", ["executing", "inconclusive"])
@pytest.mark.parametrize("known", [TASK, None], ids=["own task", "followed"])
def test_votes_that_leave_no_outcome_possible_are_inconclusive(
    state: str, known: Task | None
) -> None:
    async def test(tracker: TaskTracker) -> None:
        with pytest.raises(NoAgreement, match="no agreement: inconclusive") as ended:
            await tracker.certificate()
        assert ended.value.state is State.INCONCLUSIVE
        assert "in attempt 1, of 4 members 2 abstained (busy 2), 2 did not vote" in str(ended.value)
        assert {b.peer for b in ended.value.votes} == set(COMMITTEE)
        assert len({b.outcome for b in ended.value.votes if b.outcome}) == 3
        assert now() < 3

    envelopes = [TASK.envelope.document(), *disagreement()]
    node = Scripted(state=state, envelopes=envelopes)
    tracked(Scripted(), node, Scripted(silent=True), test=test, known=known)


def test_a_lost_attempt_before_the_last_one_is_not_the_end() -> None:
    truth, node = certify(), Scripted(state="inconclusive", envelopes=disagreement(attempts=1))

    async def test(tracker: TaskTracker) -> None:
        asyncio.get_running_loop().call_at(30.0, lambda: node.say(**agreed(truth)))
        await expect(tracker, truth)
        assert 30 <= now() < 36

    tracked(node, test=test)


def test_abstentions_signed_before_the_last_attempt_begins_are_not_the_end() -> None:
    """Two of four can sign them at once, while the first attempt still agrees."""
    truth = certify()
    early = [fixtures.abstain(NET, TASK, member, "busy", 1) for member in COMMITTEE[:2]]
    node = Scripted(state="inconclusive", envelopes=[vote.envelope.document() for vote in early])

    async def test(tracker: TaskTracker) -> None:
        asyncio.get_running_loop().call_at(30.0, lambda: node.say(**agreed(truth)))
        await expect(tracker, truth)
        assert 30 <= now() < 36

    tracked(node, test=test)


def test_an_attempt_that_timed_out_before_the_client_came_is_over_for_it() -> None:
    """The last attempt is hopeless, and attempt 0 ended long ago by its time."""
    task = fixtures.task(NET, now=fixtures.START - 300, deadline=600)
    votes = [
        fixtures.abstain(NET, task, member, "busy", 1) for member in committees(NET, task)[0][:2]
    ]
    envelopes = [task.envelope.document(), *(vote.envelope.document() for vote in votes)]

    async def main() -> None:
        async with surrounded([Scripted(envelopes=envelopes).serve]) as transport:
            clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START)
            with pytest.raises(NoAgreement) as ended:
                await TaskTracker(NET, transport, clock, task.id, None).certificate()
            assert ended.value.state is State.INCONCLUSIVE
            assert now() < 3

    virtual_loop.run(main)


def test_silent_strangers_hold_up_neither_the_result_nor_the_deadline() -> None:
    truth, honest = certify(), Scripted()
    strangers = [Scripted(silent=True) for _ in range(5)]

    async def agreement(tracker: TaskTracker) -> None:
        asyncio.get_running_loop().call_at(30.0, lambda: honest.say(**agreed(truth)))
        await expect(tracker, truth)
        assert now() < 32

    async def deadline(tracker: TaskTracker) -> None:
        with pytest.raises(NoAgreement, match="expired"):
            await tracker.certificate()
        assert now() == pytest.approx(TASK.deadline + LATE_VOTE_SECONDS, abs=1)

    async def refresh(tracker: TaskTracker) -> None:
        assert [s.peer for s in await tracker.refresh()] == [fixtures.peer(0)]
        assert now() == pytest.approx(PATIENCE_SECONDS, abs=1)

    tracked(honest, *strangers, test=agreement)
    tracked(*strangers, test=deadline)
    tracked(Scripted(), *strangers, test=refresh)


def test_invalid_envelopes_do_not_affect_valid_ones() -> None:
    other_task = fixtures.task(NET, nonce=1)
    truth = certify(signers=COMMITTEE[:2])
    worthless: list[Any] = [
        {},
        {"body": {"type": "commit"}, "signer": ASKER, "signature": "AA"},
        {**TASK.envelope.document(), "signature": "A" * 86},
        other_task.envelope.document(),
        fixtures.commit(NET, other_task, COMMITTEE[0]).envelope.document(),
        fixtures.signed(NET, truth.votes[0].envelope.body, 1001).envelope.document(),
    ]
    valid = [vote.envelope.document() for vote in truth.votes]

    async def test(tracker: TaskTracker) -> None:
        await expect(tracker, truth)
        assert len(tracker.votes) == 2

    tracked(Scripted(envelopes=[*worthless, *valid]), test=test)


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x00", b"\x00\x02{}", b"\x01\x02{}", b"\x07\x02{}", b"\x00\xff\xff\xff\xff\x7f"],
    ids=repr,
)
def test_node_that_violates_the_protocol_is_ignored(answer: bytes) -> None:
    truth, honest = certify(), Scripted()

    async def babble(protocol: str, stream: Stream) -> None:
        await stream.write(answer)

    async def main() -> None:
        async with surrounded([babble, honest.serve]) as transport:
            clock = virtual_loop.VirtualClock(asyncio.get_running_loop(), fixtures.START)
            asyncio.get_running_loop().call_at(5.0, lambda: honest.say(**agreed(truth)))
            await expect(TaskTracker(NET, transport, clock, TASK.id, TASK), truth)
            assert now() < 7

    virtual_loop.run(main)


# Floods of envelopes


@dataclass
class Flooded:
    """What one poll of a node costs, and what the node is reported for."""

    verified: int = 0
    turns: int = 0  # of the loop, after signature checks
    most_per_turn: int = 0  # signature checks in one turn of the loop
    reported: list[str] = field(default_factory=list)
    log: list[Any] = field(default_factory=list)


def flood(
    monkeypatch: pytest.MonkeyPatch, envelopes: Sequence[Any], known: Task | None = TASK
) -> Flooded:
    """Poll a node that shows these envelopes."""
    flooded = Flooded()
    verify = Envelope.verify

    def count_turn() -> None:
        flooded.turns += 1

    def counting(envelope: Envelope) -> None:
        flooded.verified += 1
        flooded.most_per_turn = max(flooded.most_per_turn, flooded.verified - flooded.turns)
        asyncio.get_running_loop().call_soon(count_turn)
        verify(envelope)

    async def test(tracker: TaskTracker) -> None:
        tracker._transport.report = (  # type: ignore[method-assign]
            lambda peer, action: flooded.reported.append(peer)
        )
        with capture_logs() as flooded.log:
            await tracker.poll(fixtures.peer(0))

    monkeypatch.setattr(Envelope, "verify", counting)
    tracked(Scripted(envelopes=[*envelopes]), test=test, known=known)
    return flooded


def self_signed(index: int, signer: int) -> Any:
    body = messages.commit_body(NET.id, TASK.id, 0, f"{index:064x}")
    return fixtures.signed(NET, body, signer).envelope.document()


@pytest.mark.parametrize("known", [TASK, None], ids=["own task", "followed"])
def test_votes_outside_the_committee_are_not_verified(
    monkeypatch: pytest.MonkeyPatch, known: Task | None
) -> None:
    """Anybody can sign thousands of them. The answer ends at the eighth."""
    votes = [self_signed(index, 1005) for index in range(100)]
    flooded = flood(monkeypatch, [TASK.envelope.document(), *votes], known)
    assert flooded.verified == 1, "the task"
    assert flooded.reported == [fixtures.peer(0)]
    warnings = [entry for entry in flooded.log if entry["log_level"] == "warning"]
    assert [entry["count"] for entry in warnings] == [MAX_INVALID], "one line for all"


def test_votes_without_their_task_are_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = [self_signed(index, 1005) for index in range(100)]
    assert flood(monkeypatch, votes, known=None).verified == 0


@pytest.mark.parametrize(
    ("of", "verified"), [("another task", 0), ("a stranger", 0), ("a forger", MAX_INVALID)]
)
def test_answer_ends_after_a_few_invalid_envelopes(
    monkeypatch: pytest.MonkeyPatch, of: str, verified: int
) -> None:
    other = fixtures.task(NET, nonce=1)
    members = [COMMITTEE[index % 3] for index in range(100)]
    envelopes: dict[str, list[Any]] = {
        "another task": [
            fixtures.commit(NET, other, member).envelope.document() for member in members
        ],
        "a stranger": [fixtures.withdraw(NET, TASK, requester=1001).envelope.document()] * 100,
        "a forger": [
            {**self_signed(index, 1005), "signer": member} for index, member in enumerate(members)
        ],
    }
    flooded = flood(monkeypatch, envelopes[of])
    assert flooded.verified == verified
    assert flooded.reported == [fixtures.peer(0)]


def test_other_tasks_end_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [fixtures.task(NET, nonce=nonce).envelope.document() for nonce in range(1, 50)]
    assert flood(monkeypatch, tasks).verified == MAX_INVALID


def test_other_coroutines_run_between_the_envelopes_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A member may have signed any number of votes, and each costs a signature check."""
    member = fixtures.index_of(COMMITTEE[0])
    flooded = flood(monkeypatch, [self_signed(index, member) for index in range(50)])
    assert flooded.verified == 50
    assert flooded.most_per_turn == 1
    assert flooded.reported == [], "an equivocator's votes are what an honest node may show"


# Unknown


def test_unknown_task_is_reported_after_a_grace_period() -> None:
    async def test(tracker: TaskTracker) -> None:
        with pytest.raises(UnknownTask, match=TASK.id):
            await tracker.certificate()
        assert UNKNOWN_TASK_SECONDS <= now() < UNKNOWN_TASK_SECONDS + 2

    tracked(Scripted(knows=False), Scripted(knows=False), test=test, known=None)


def test_task_that_arrives_within_the_grace_period_is_found() -> None:
    truth = certify()
    node = Scripted(knows=False)

    async def test(tracker: TaskTracker) -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(3.0, lambda: node.say(knows=True, **agreed(truth)))
        await expect(tracker, truth)
        assert now() < 5

    tracked(node, Scripted(knows=False), test=test, known=None)


def test_task_that_one_node_knows_is_not_unknown() -> None:
    truth = certify()
    node = Scripted()

    async def test(tracker: TaskTracker) -> None:
        asyncio.get_running_loop().call_at(20.0, lambda: node.say(**agreed(truth)))
        await expect(tracker, truth)

    tracked(node, Scripted(knows=False), test=test, known=None)


def test_watch_requests_end_with_the_task() -> None:
    truth = certify()
    node = Scripted(**agreed(truth))

    async def test(tracker: TaskTracker) -> None:
        await expect(tracker, truth)
        polls = len(node.asked)
        await asyncio.sleep(60)
        assert len(node.asked) == polls

    tracked(node, Scripted(), test=test)


@pytest.mark.parametrize("other", [{"answers": False}, {"silent": True}], ids=["resets", "silent"])
def test_nodes_without_an_answer_do_not_keep_an_unknown_task_open(other: dict[str, Any]) -> None:
    async def test(tracker: TaskTracker) -> None:
        with pytest.raises(UnknownTask, match=TASK.id):
            await tracker.certificate()
        assert now() == pytest.approx(SILENT_NODE_SECONDS, abs=1)

    tracked(Scripted(**other), Scripted(knows=False), test=test, known=None)


def test_silent_nodes_do_not_hold_up_the_search_for_a_task() -> None:
    """A request to a silent node takes longer than the search."""

    async def test(tracker: TaskTracker) -> None:
        with pytest.raises(UnknownTask, match=TASK.id):
            await tracker.find()
        assert now() == pytest.approx(SILENT_NODE_SECONDS, abs=1)

    assert ANSWER_SECONDS > SILENT_NODE_SECONDS + 1
    tracked(Scripted(silent=True), Scripted(silent=True), test=test, known=None)


def test_a_slow_node_may_still_show_an_unknown_task() -> None:
    truth = certify()
    node = Scripted(answers=False)

    async def test(tracker: TaskTracker) -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(2 * UNKNOWN_TASK_SECONDS, lambda: node.say(answers=True, **agreed(truth)))
        await expect(tracker, truth)

    tracked(node, Scripted(knows=False), test=test, known=None)


# Withdrawals


def test_a_withdrawal_is_shown_with_the_nodes_that_have_it() -> None:
    withdrawal = fixtures.withdraw(NET, TASK).envelope.document()
    envelopes = [TASK.envelope.document(), withdrawal]

    async def test(tracker: TaskTracker) -> None:
        await tracker.refresh()
        assert tracker.withdrawal_peers == {fixtures.peer(1)}
        assert tracker.settled is None

    tracked(Scripted(), Scripted(envelopes=envelopes), test=test, known=None)


@pytest.mark.parametrize(
    "withdrawal",
    [
        fixtures.withdraw(NET, TASK, requester=1001),
        fixtures.withdraw(NET, fixtures.task(NET, nonce=1)),
    ],
    ids=["of a stranger", "of another task"],
)
def test_a_foreign_withdrawal_is_not_shown(withdrawal: Withdraw) -> None:
    envelopes = [TASK.envelope.document(), withdrawal.envelope.document()]

    async def test(tracker: TaskTracker) -> None:
        await tracker.refresh()
        assert tracker.withdrawal_peers == frozenset()

    tracked(Scripted(envelopes=envelopes), test=test)


def test_each_envelope_and_certificate_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is shown, and by however many nodes; an invalid one too."""
    truth = certify()
    envelopes = [TASK.envelope.document(), *(vote.envelope.document() for vote in truth.votes)]
    forged = {**envelopes[1], "signature": envelopes[2]["signature"]}
    verified: list[object] = []
    verify = Envelope.verify

    def counting(envelope: Envelope) -> None:
        verified.append(envelope)
        verify(envelope)

    monkeypatch.setattr(Envelope, "verify", counting)
    node = Scripted(envelopes=[*envelopes, forged], **agreed(truth))

    async def test(tracker: TaskTracker) -> None:
        await tracker.refresh()
        # Those of the certificate are verified with it.
        assert len(verified) == len(envelopes) + 1 + len(envelopes)
        await tracker.refresh()
        assert len(verified) == 2 * len(envelopes) + 1
        assert tracker.settled is not None
        assert len(tracker.votes) == len(truth.votes)

    tracked(node, node, test=test)


def test_votes_shown_before_their_task_are_counted_later() -> None:
    """They are neither verified nor judged without the task."""
    truth = certify()
    votes = [vote.envelope.document() for vote in truth.votes]
    node = Scripted(envelopes=votes)

    async def test(tracker: TaskTracker) -> None:
        await tracker.refresh()
        assert tracker.votes == ()
        node.say(envelopes=[TASK.envelope.document(), *votes])
        await tracker.refresh()
        assert len(tracker.votes) == len(votes)

    tracked(node, test=test, known=None)
