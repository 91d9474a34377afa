"""The invariants of every run, whatever the network, the faults and the adversaries do.

- I1: no two honest nodes settle a task differently
- I2: every certificate verifies offline
- I3: no certificate has a wrong outcome unless a quorum of the committee is faulty
- I4: settled state survives crashes
- I5: no honest node equivocates, and each honest node has evidence against each equivocator
- I6: every accepted task ends, by its deadline; before it only if votes leave no outcome possible
- I7: memory is bounded
- 7.9: honest nodes have read the feeds of the honest nodes that they follow, in the end
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, TypeAlias

from node.consensus.coordinator import Coordinator
from protocol.consensus import certificate
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.consensus.evidence import Evidence, EvidenceKind
from protocol.consensus.evidence import verify as verify_evidence
from protocol.errors import Rejected
from protocol.wire.codec import decode
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Abstain, Commit, Reveal, Task, Vote, Withdraw
from tests.simulation import doubles, specification
from tests.simulation.report import Violation
from tests.support import fixtures
from tests.support.journals import accepted

if TYPE_CHECKING:
    from tests.simulation.faulty_nodes import FaultyNode
    from tests.simulation.runner import Simulation

COPIERS = ("copycat", "late joiner")
THIEVES = ("commitment thief", "replayer")
# Votes of one member stored in a round: one of each type, a conflicting commit and abstain,
# conflicting reveals up to the limit in `protocol.consensus.round`, and one that a received
# certificate contains.
MAX_VOTES = 3 + 2 + 3 + 1
# Seconds a task may stay open past its deadline: the coordinator retries a failed write after one.
MAX_DELAY = 2.0
Slot: TypeAlias = tuple[str, str, str, int]
# State and certificates by task.
Settled: TypeAlias = dict[str, tuple[State, list[str]]]


class Signatures:
    """I5: all votes that honest nodes signed, across restarts."""

    def __init__(self, honest: set[str]) -> None:
        self._honest = honest
        self._bodies: dict[Slot, bytes] = {}
        self._payloads: set[bytes] = set()

    def add(self, payload: bytes) -> None:
        """Check an envelope that a node sent or stored. Raises Violation for an equivocation."""
        if payload in self._payloads:
            return
        self._payloads.add(payload)
        envelope = json.loads(payload)
        body, signer = envelope["body"], envelope["signer"]
        if body["type"] in ("task", "withdraw") or signer not in self._honest:
            return
        slot = (signer, body["type"], body["task"], body["attempt"])
        encoded = canonical(body)
        if self._bodies.setdefault(slot, encoded) != encoded:
            index = fixtures.index_of(signer)
            raise Violation("I5", f"honest {index} signed two {slot[1]}s of attempt {slot[3]}")


def check_settled(simulation: "Simulation", node: "FaultyNode") -> None:
    """I4: settled state survives crashes."""
    with simulation.faults_suspended():
        on_commit(node)


def on_commit(node: "FaultyNode") -> None:
    """I4 and I6, after each COMMIT of a node: no settled state is lost, and none comes late."""
    for task, (last_state, certificates) in node.settled.items():
        state = node.state(task)
        upgraded = state is not None and state.certified and not last_state.certified
        if state is not last_state and not upgraded:
            raise Violation("I4", f"{node.index} went from {last_state} to {state}")
        if node.certificate_texts(task)[: len(certificates)] != certificates:
            raise Violation("I4", f"{node.index} lost a certificate of {task[:8]}")
    for task in node.tasks():
        state = node.state(task)
        if state is not None and state.terminal:
            if task not in node.settled:
                _check_in_time(node, task)
                if state is State.INCONCLUSIVE:
                    _check_inconclusive(node, task)
            node.settled[task] = (state, node.certificate_texts(task))


def check_now(simulation: "Simulation") -> None:
    """Check what must hold at any moment."""
    for node in simulation.honest:
        check_settled(simulation, node)
        if node.up and node.coordinator is not None:
            with simulation.faults_suspended():
                tasks, open_tasks = set(node.tasks()), node.journal.open_tasks()
            check_bounded(node.coordinator, simulation.scenario.max_open, tasks)
            for task in open_tasks if node.disk is None else ():
                _check_in_time(node, task)


def _check_in_time(node: "FaultyNode", task: str) -> None:
    """I6: a healthy node has no open task past its deadline."""
    body = json.loads(node.journal.entries(task)[0].envelope)["body"]
    delay = node.clock.now() - (body["created"] / 1000 + body["deadline"])
    if delay > MAX_DELAY and node.up and node.clock.now() - node.unhealthy_at > MAX_DELAY:
        raise Violation("I6", f"{node.index} has {task[:8]} open {delay:.1f} s past its deadline")


def _check_inconclusive(node: "FaultyNode", task: str) -> None:
    """6.6: in the last attempt fewer than a quorum may still vote, and no outcome has a quorum."""
    votes = [decode(e.envelope.encode(), node.network.id) for e in node.journal.entries(task)]
    [body] = [vote.envelope.body for vote in votes if isinstance(vote, Task)]
    attempts = specification.committees(node.network, task, str(body["class"]))
    last = len(attempts) - 1
    voted = {v.signer for v in votes if isinstance(v, Reveal | Abstain) and v.attempt == last}
    silent = [peer for peer in attempts[last] if peer not in voted]
    if 2 * len(silent) > len(attempts[last]):
        raise Violation("I6", f"{node.index} gave up {task[:8]} with {len(silent)} votes to come")


def check_bounded(
    coordinator: Coordinator, max_open: int, accepted_tasks: AbstractSet[str]
) -> None:
    """I7: memory per task and per peer is bounded.

    `known` are the tasks of the node's journal. Nothing is held for other tasks, except for a
    retry of a failed write.
    """
    table = coordinator._tasks
    held = table._agreements
    ended = sum(a.state.terminal for a in held.values())
    revealing = sum(a.state.terminal and a.wake_at() is not None for a in held.values())
    if len(held) - ended > max_open or len(held) - revealing > 2 * max_open + 1:
        raise Violation("I7", f"{len(held)} tasks in memory, {ended} of them ended")
    if len(table._rebuilds) > 2 * max_open + 64:
        raise Violation("I7", f"{len(table._rebuilds)} tasks to be rebuilt")
    if unknown := table._expiries.keys() - accepted_tasks - set(table._rebuilds):
        raise Violation("I7", f"{len(unknown)} deadlines of tasks that were never accepted")
    for votes in (r for agreement in held.values() for r in agreement.vote_sets):
        votes_of = Counter(signer for signer, _ in votes._first)
        votes_of.update(vote.signer for more in votes._conflicting.values() for vote in more)
        for peer, count in votes_of.items():
            if peer not in votes.committee or count > MAX_VOTES:
                raise Violation("I7", f"{count} votes of {fixtures.index_of(peer)} in a round")


def check_end(simulation: "Simulation") -> None:
    """Check all invariants at the end of a run."""
    check_now(simulation)
    for target, source in simulation.bans:
        if {target, source} <= {m.peer for m in simulation.honest}:
            banning, banned = fixtures.index_of(target), fixtures.index_of(source)
            raise Violation("bans", f"honest {banning} banned honest {banned}")
    for node in simulation.honest:
        _check_accepted(simulation, node)
    ids = sorted({task for m in simulation.honest for task in m.tasks()})
    for task in ids:
        _check_task(simulation, task)
    for submitted in simulation.submitted:
        _check_submitted(simulation, submitted)
    for reader, owner in unread_feeds(simulation):
        raise Violation("7.9", f"{reader} has not read all of the feed of {owner}")
    votes = list(_votes(simulation))
    _check_lists(simulation, votes)
    _check_evidence(simulation, votes)


def unread_feeds(simulation: "Simulation") -> list[tuple[int, int]]:
    """7.9: return pairs of honest nodes: the first has not read all of the second's feed.

    One of the two dials the other, so they are connected as soon as the network permits it. In a
    network of more members than a node follows, only those count that the first one follows now.
    """
    return [
        (reader.index, owner.index)
        for reader in simulation.honest
        for owner in simulation.honest
        if (owner.index in reader.dialled or reader.index in owner.dialled)
        and reader.is_to_follow(owner)
        and not reader.has_read_feed(owner)
    ]


def _check_task(simulation: "Simulation", task: str) -> None:
    states = {m.index: s for m in simulation.honest if (s := m.state(task)) is not None}
    simulation.report.ends.update(map(str, states.values()))
    waiting = {i: str(s) for i, s in states.items() if not s.terminal}
    if waiting:
        raise Violation("I6", f"{task[:8]} has not ended: {waiting}")
    outcomes = set[str]()
    for node in simulation.honest:
        for text in node.certificate_texts(task):
            outcomes.add(verify(simulation, text, task))
    if len(outcomes) > 1:
        _check_conflict(simulation, task, outcomes)
    if len(states) < len(simulation.honest):  # it arrived too late at some nodes (7.9)
        return
    ends = set(states.values())
    if any(s.certified for s in ends) and not all(s.certified for s in ends):
        raise Violation(
            "I1", f"{task[:8]} ended differently: { {i: str(s) for i, s in states.items()} }"
        )


def _check_accepted(simulation: "Simulation", node: "FaultyNode") -> None:
    """3 and 6.1: each accepted task was valid by the node's clock when it arrived."""
    for task in node.tasks():
        first = node.journal.entries(task)[0]
        if reason := specification.rejection(
            json.loads(first.envelope), first.at, simulation.network
        ):
            raise Violation("3.8, 4.2", f"{node.index} accepted {task[:8]}, {reason}")


def check_journalled(node: "FaultyNode", payload: bytes) -> None:
    """I5: a node sends only what its journal has."""
    if not node.has_journalled(payload):
        raise Violation("I5", f"{node.index} sends a message that its journal has not")


def verify(simulation: "Simulation", text: str, task: str = "") -> str:
    """I2 and I3 of a certificate, of this task if given; return its outcome digest."""
    if text not in simulation.verified:
        simulation.verified[text] = _verify(simulation, text)
    certified, digest = simulation.verified[text]
    if task not in ("", certified):
        raise Violation("I2", f"a certificate of {certified[:8]} is stored for {task[:8]}")
    return str(digest)


def check_shown(simulation: "Simulation", documents: Sequence[Document]) -> None:
    """I2 and I3 of certificates that a peer shows: those that verify must be right."""
    for document in documents:
        try:
            certificate.verify(document, simulation.network)
        except Rejected:
            continue
        verify(simulation, canonical(document).decode())


def _verify(simulation: "Simulation", text: str) -> tuple[str, str]:
    try:
        valid = certificate.verify(json.loads(text), simulation.network)
    except Exception as error:
        raise Violation("I2", repr(error)) from error
    if fault := specification.certificate_fault(json.loads(text), simulation.network):
        raise Violation("I2", f"an invalid certificate is accepted: {fault}")
    thieves = [p for p in valid.signers if _role(simulation, p) in THIEVES]
    if thieves:
        raise Violation(
            "4", f"{fixtures.index_of(thieves[0])} signed with another member's commitment"
        )
    committee = committees(simulation.network, valid.task)[valid.attempt]
    faulty = [p for p in committee if not _is_honest(simulation, p)]
    right = right_outcome(simulation, valid.task)
    if valid.outcome != right and 2 * len(faulty) <= len(committee):
        raise Violation("I3", f"a wrong outcome by {len(faulty)} faulty of {len(committee)}")
    behind = valid.operators(simulation.network)
    alone = len(behind) == 1 and len(valid.signers) > 1
    if alone and len(simulation.network.operators(valid.task.compute_class)) > 1:
        raise Violation("5", f"one operator alone certified {valid.task.id[:8]}")
    if valid.outcome != right and any(_is_honest(simulation, p) for p in valid.signers):
        raise Violation("I3", "an honest member signed a wrong outcome")
    return valid.task.id, valid.votes[0].digest


def right_outcome(simulation: "Simulation", task: Task) -> Document:
    """Return the outcome that honest members compute."""
    return doubles.outcome(task.args, proves_work=simulation.network.proves_work(task))


def _check_conflict(simulation: "Simulation", task: str, outcomes: set[str]) -> None:
    """I1: every node that settled the task reports both outcomes as a conflict."""
    for node in simulation.honest:
        if 0 < len(node.certificate_texts(task)) < len(outcomes):
            raise Violation("I1", f"{node.index} does not report the conflict about {task[:8]}")


def _check_submitted(simulation: "Simulation", task: Task) -> None:
    """Every node gets a submitted task. In a synchronous network an honest quorum settles it."""
    for node in simulation.honest:
        state = node.state(task.id)
        if state is None:
            raise Violation("I6", f"{node.index} never got {task.id[:8]}")
    _check_committees(simulation, task)
    if not must_settle(simulation, task):
        return
    for node in simulation.honest:
        state, certificates = node.state(task.id), node.certificate_texts(task.id)
        right = right_outcome(simulation, task)
        expected = State.AGREED_ERROR if "error" in right else State.AGREED
        if state is not expected or json.loads(certificates[0])["attempt"] != 0:
            raise Violation(
                "liveness", f"{node.index}: {state}, although honest members are a quorum"
            )


def _check_committees(simulation: "Simulation", task: Task) -> None:
    """5: committees match the specification, and no operator has two places."""
    if specification.committees(simulation.network, task.id, task.compute_class) != [
        *committees(simulation.network, task)
    ]:
        raise Violation("5", f"the committees of {task.id[:8]} differ from the specification's")
    members = simulation.network.members(task.compute_class)
    operators = {member.peer: member.operator for member in members}
    for committee in committees(simulation.network, task):
        operator_count = len({operators[peer] for peer in committee})
        if operator_count < len(committee) and len(set(operators.values())) > 1:
            raise Violation(
                "5", f"{len(committee)} members of {operator_count} operators on a committee"
            )


def must_settle(simulation: "Simulation", task: Task) -> bool:
    """Return whether the first attempt must settle a task (specification 1)."""
    committee = committees(simulation.network, task)[0]
    voters = [node for node in simulation.honest if node.peer in committee]
    able = sum(_may_vote(simulation, node) for node in voters)
    return simulation.scenario.synchronous and 2 * able > len(committee)


def _may_vote(simulation: "Simulation", node: "FaultyNode") -> bool:
    """Return whether a node surely reads enough feeds to vote (specification 6.12).

    In a large network it is not connected to all members, and faulty ones may show it no feed.
    """
    roster = simulation.network.roster
    own = roster[node.peer].operator
    others = [other for other in simulation.honest if other is not node]
    connected = [
        other for other in others if other.index in node.dialled or node.index in other.dialled
    ]
    read = {roster[other.peer].operator for other in connected} - {own}
    needed = {member.operator for member in roster.values()} - {own}
    return len(connected) == len(others) or 2 * len(read) > len(needed)


def _check_lists(simulation: "Simulation", votes: Sequence[Vote]) -> None:
    """6.3: no honest member lists a commit that was sent after the first reveal."""
    certain = {task.id for task in simulation.submitted if must_settle(simulation, task)}
    for vote in votes:
        if not isinstance(vote, Reveal) or vote.task not in certain or vote.attempt:
            continue
        if not _is_honest(simulation, vote.signer):
            continue
        if any(_role(simulation, peer) in COPIERS for peer in vote.commits):
            raise Violation("6.3", f"{fixtures.index_of(vote.signer)} listed a late commit")


def _check_evidence(simulation: "Simulation", votes: Sequence[Vote]) -> None:
    """I5: every honest node has evidence against each member that equivocated."""
    everywhere = set.intersection(*(set(node.tasks()) for node in simulation.honest))
    guilty = {
        slot
        for slot, slot_votes in _by_slot(votes).items()
        if slot[1] in everywhere and _equivocates(slot_votes)
    }
    inconstant = {
        (signer, task)
        for (signer, task), digests in _digests(votes).items()
        if task in everywhere and len(digests) > 1
    }
    # Which reveal of an equivocator came first differs from node to node.
    inconstant -= {(signer, task) for signer, task, _ in guilty}
    for node in simulation.honest:
        accused = set[tuple[object, ...]]()
        for text in node.evidence():
            if text not in simulation.verified:
                simulation.verified[text] = verify_evidence(json.loads(text), simulation.network.id)
            evidence = simulation.verified[text]
            if _is_honest(simulation, evidence.signer):
                raise Violation(
                    "I5", f"evidence against honest {fixtures.index_of(evidence.signer)}"
                )
            accused.add((evidence.signer, evidence.task, *_attempts(evidence)))
            simulation.report.evidence += 1
        for signer, task, *_ in sorted(inconstant - accused):
            raise Violation(
                "I5",
                f"{node.index} has no evidence of inconstancy against "
                f"{fixtures.index_of(signer)} in {task[:8]}",
            )
        for signer, task, attempt in sorted(guilty - accused):
            raise Violation(
                "I5",
                f"{node.index} has no evidence against {fixtures.index_of(signer)} "
                f"in {task[:8]} attempt {attempt}",
            )


def _attempts(evidence: Evidence) -> tuple[int, ...]:
    """The attempt of an equivocation; () for an inconstancy."""
    return evidence.attempts[:1] if evidence.kind is EvidenceKind.EQUIVOCATION else ()


def _digests(votes: Sequence[Vote]) -> Mapping[tuple[str, str], set[str]]:
    """Return the outcomes that each signer revealed for a task, where it revealed in two attempts.

    Only the first reveals of an attempt count: a second one is an equivocation.
    """
    first: dict[tuple[str, str], dict[int, str]] = {}
    for vote in votes:
        if isinstance(vote, Reveal):
            first.setdefault((vote.signer, vote.task), {}).setdefault(vote.attempt, vote.digest)
    return {key: set(by_attempt.values()) for key, by_attempt in first.items()}


def _votes(simulation: "Simulation") -> Iterator[Vote]:
    seen = set[str]()
    for node in simulation.honest:
        for text in map(bytes.decode, accepted(node.journal)):
            if text in seen:
                continue
            seen.add(text)
            if json.loads(text)["body"]["network"] != simulation.network.id:
                raise Violation("journal", f"{node.index} accepted a message of another network")
            simulation.signatures.add(text.encode())
            message = decode(text.encode(), simulation.network.id)
            if not isinstance(message, Task | Withdraw):
                yield message


def _by_slot(votes: Sequence[Vote]) -> Mapping[tuple[str, str, int], list[Vote]]:
    slots: dict[tuple[str, str, int], list[Vote]] = {}
    for vote in votes:
        slots.setdefault((vote.signer, vote.task, vote.attempt), []).append(vote)
    return slots


def _equivocates(votes: list[Vote]) -> bool:
    """Return whether one signer's votes in a round conflict.

    This restates the rule of specification 4, because the product's own rule is under test.
    """
    for kind in (Commit, Reveal, Abstain):
        if len({canonical(v.envelope.body) for v in votes if isinstance(v, kind)}) > 1:
            return True
    commitments = {v.commitment for v in votes if isinstance(v, Commit)}
    return any(isinstance(v, Reveal) and commitments - {v.commitment} for v in votes)


def _role(simulation: "Simulation", peer: str) -> str:
    return simulation.scenario.roles[fixtures.index_of(peer)]


def _is_honest(simulation: "Simulation", peer: str) -> bool:
    return simulation.scenario.honest(fixtures.index_of(peer))
