"""What must hold of every history, whatever the weather, the faults and the adversaries.

The numbers are those of the design: I1 no two honest nodes settle one task differently; I2 every
certificate verifies offline; I3 no certificate is wrong without a faulty quorum; I4 settled state
survives; I5 no honest node contradicts itself, and who does is proven to everybody; I6 every
accepted task ends; I7 memory is bounded.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

from node.clock import Clock
from node.consensus.coordinator import Coordinator
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from protocol.consensus import certificate
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.consensus.evidence import verify as verify_evidence
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire.codec import decode
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Abstain, Commit, Reveal, Task, Vote
from tests.simulation import executing, rules
from tests.simulation.report import Report, Violation
from tests.simulation.scenario import Scenario
from tests.support import fixtures

COPIERS = ("copycat", "late joiner")
THIEVES = ("commitment thief", "replayer")
MOST_VOTES = 3 + 2 + 3 + 1
"""Held of a member in a round: one of each type; a contradiction of each, or of reveals as many as
complete certificates (`protocol.consensus.round`), and one that a shown certificate rests on."""
LATE = 2.0  # seconds: `node.consensus.coordinator` retries a failed write after one
Slot: TypeAlias = tuple[str, str, str, int]
Kept: TypeAlias = dict[str, tuple[State, list[str]]]
"""State and certificates by task."""


class Node(Protocol):
    """What is looked at of a node; certificates and evidence as the texts that it keeps."""

    index: int
    peer: str
    journal: Journal
    ledger: Ledger
    kept: Kept
    disk: str | None
    unwell_at: float  # by its clock: when it started, or its disk failed, last

    @property
    def clock(self) -> Clock: ...

    @property
    def up(self) -> bool: ...

    @property
    def coordinator(self) -> Coordinator | None: ...

    def state(self, task: str) -> State | None: ...

    def tasks(self) -> list[str]: ...

    def certificates(self, task: str) -> list[str]: ...

    def evidence(self) -> list[str]: ...


class Scene(Protocol):
    """What is looked at of a history: an `Arena` or a `History`."""

    scenario: Scenario
    network: Network
    report: Report
    submitted: list[Task]
    signatures: "Signatures"
    proven: dict[str, Any]  # certificates and evidence that were checked, by text

    @property
    def honest(self) -> Sequence[Node]: ...

    @property
    def bans(self) -> list[tuple[str, str]]: ...

    def looking(self) -> AbstractContextManager[None]: ...


class Signatures:
    """I5: what the honest signed and sent, over all their lives."""

    def __init__(self, honest: set[str]) -> None:
        self._honest = honest
        self._bodies: dict[Slot, bytes] = {}
        self._known: set[bytes] = set()

    def see(self, payload: bytes) -> None:
        """Take an envelope that somebody holds or sent."""
        if payload in self._known:
            return
        self._known.add(payload)
        envelope = json.loads(payload)
        body, signer = envelope["body"], envelope["signer"]
        if body["type"] == "task" or signer not in self._honest:
            return
        slot = (signer, body["type"], body["task"], body["attempt"])
        written = canonical(body)
        if self._bodies.setdefault(slot, written) != written:
            index = fixtures.index_of(signer)
            raise Violation("I5", f"honest {index} signed two: {slot[1]} of attempt {slot[3]}")


def check_kept(scene: Scene, node: Node) -> None:
    """I4: what was settled once stays, through every crash."""
    with scene.looking():
        settle(node)


def settle(node: Node) -> None:
    """I4 and I6, at every COMMIT of a node: keep what it settled; nothing is lost, nor late."""
    for task, (before, certificates) in node.kept.items():
        now = node.state(task)
        after = node.certificates(task)
        if now is not before and not (now and now.certified and not before.certified):
            raise Violation("I4", f"{node.index} went from {before} to {now}")
        if after[: len(certificates)] != certificates:
            raise Violation("I4", f"{node.index} lost a certificate of {task[:8]}")
    for task in node.tasks():
        state = node.state(task)
        if state is not None and state.terminal:
            if task not in node.kept:
                _check_in_time(node, task)
            node.kept[task] = (state, node.certificates(task))


def check_now(scene: Scene) -> None:
    """Check what must hold at any moment."""
    for node in scene.honest:
        check_kept(scene, node)
        if node.up and node.coordinator is not None:
            with scene.looking():
                known, not_ended = set(node.tasks()), node.journal.open_tasks()
            check_bounded(node.coordinator, scene.scenario.max_open, known)
            for task in not_ended if node.disk is None else ():
                _check_in_time(node, task)


def _check_in_time(node: Node, task: str) -> None:
    """I6: a node that is up and well leaves no task open past its deadline."""
    body = json.loads(node.journal.entries(task)[0].envelope)["body"]
    late = node.clock.now() - (body["created"] / 1000 + body["deadline"])
    if late > LATE and node.up and node.clock.now() - node.unwell_at > LATE:
        raise Violation("I6", f"{node.index} has {task[:8]} open {late:.1f} s past its deadline")


def check_bounded(coordinator: Coordinator, max_open: int, known: AbstractSet[str]) -> None:
    """I7: memory held for a task or a peer is bounded, whatever was sent.

    `known` are the tasks of its journal: of others nothing is held, but for a failed write's sake.
    """
    held = coordinator._agreements
    ended = sum(a.state.terminal for a in held.values())
    revealing = sum(a.state.terminal and a.wake_at() is not None for a in held.values())
    if len(held) - ended > max_open or len(held) - revealing > 2 * max_open + 1:
        raise Violation("I7", f"{len(held)} tasks in memory, {ended} of them over")
    if len(coordinator._lost) > 2 * max_open + 64:
        raise Violation("I7", f"{len(coordinator._lost)} tasks to be rebuilt")
    if unknown := coordinator._expiries.keys() - known - coordinator._lost.keys():
        raise Violation("I7", f"{len(unknown)} deadlines of tasks that were never accepted")
    for votes in (r for agreement in held.values() for r in agreement.rounds):
        of = Counter(signer for signer, _ in votes._standing)
        of.update(vote.signer for more in votes._opposed.values() for vote in more)
        for peer, count in of.items():
            if peer not in votes.committee or count > MOST_VOTES:
                raise Violation("I7", f"{count} votes of {fixtures.index_of(peer)} in a round")


def check_end(scene: Scene) -> None:
    """Check everything, of a history that has come to rest."""
    check_now(scene)
    for target, source in scene.bans:
        if {target, source} <= {m.peer for m in scene.honest}:
            names = [fixtures.index_of(p) for p in (target, source)]
            raise Violation("bans", f"honest {names[0]} banned honest {names[1]}")
    ids = sorted({task for m in scene.honest for task in m.tasks()})
    for task in ids:
        _check_task(scene, task)
    for node in scene.honest:
        _check_taken(scene, node)
    for submitted in scene.submitted:
        _check_submitted(scene, submitted)
    votes = list(_votes(scene))
    _check_lists(scene, votes)
    _check_evidence(scene, votes)


def _check_task(scene: Scene, task: str) -> None:
    states = {m.index: s for m in scene.honest if (s := m.state(task)) is not None}
    scene.report.ends.update(map(str, states.values()))
    waiting = {i: str(s) for i, s in states.items() if not s.terminal}
    if waiting:
        raise Violation("I6", f"{task[:8]} has not ended: {waiting}")
    outcomes = set[str]()
    for node in scene.honest:
        for text in node.certificates(task):
            outcomes.add(digest_of(scene, text))
    if len(outcomes) > 1:
        _check_conflict(scene, task, outcomes)
    if len(states) < len(scene.honest):  # it came too late for some (limit 7d)
        return
    ends = set(states.values())
    if any(s.certified for s in ends) and not all(s.certified for s in ends):
        raise Violation(
            "I1", f"{task[:8]} ended differently: { {i: str(s) for i, s in states.items()} }"
        )


def _check_taken(scene: Scene, node: Node) -> None:
    """3 and 6.1: whatever a node accepted was admissible, by its clock when it came."""
    for task in node.tasks():
        first = node.journal.entries(task)[0]
        if fault := rules.untaken(json.loads(first.envelope)["body"], first.at, scene.network):
            raise Violation("3, 6.1", f"{node.index} took {task[:8]}, {fault}")


def digest_of(scene: Scene, text: str) -> str:
    """I2 and I3; return the outcome digest."""
    if text not in scene.proven:
        scene.proven[text] = _verified(scene, text)
    return str(scene.proven[text])


def believed(scene: Scene, shown: Sequence[Document]) -> tuple[Certificate, ...]:
    """I2 and I3 of what a peer shows: return what is taken for valid, which must be right."""
    taken = []
    for document in shown:
        try:
            taken.append(certificate.verify(document, scene.network))
        except Rejected:
            continue
        digest_of(scene, canonical(document).decode())
    return tuple(taken)


def _verified(scene: Scene, text: str) -> str:
    try:
        valid = certificate.verify(json.loads(text), scene.network)
    except Exception as error:
        raise Violation("I2", repr(error)) from error
    if fault := rules.broken(json.loads(text), scene.network):
        raise Violation("I2", f"a certificate is taken for valid: {fault}")
    thieves = [p for p in valid.signers if _role(scene, p) in THIEVES]
    if thieves:
        raise Violation(
            "4", f"{fixtures.index_of(thieves[0])} signed with what another one had made"
        )
    committee = committees(scene.network, valid.task)[valid.attempt]
    faulty = [p for p in committee if not _is_honest(scene, p)]
    right = executing.outcome(valid.task.args)
    if valid.outcome != right and 2 * len(faulty) <= len(committee):
        raise Violation("I3", f"a wrong outcome by {len(faulty)} faulty of {len(committee)}")
    if valid.outcome != right and any(_is_honest(scene, p) for p in valid.signers):
        raise Violation("I3", "an honest member signed a wrong outcome")
    return valid.votes[0].digest


def _check_conflict(scene: Scene, task: str, outcomes: set[str]) -> None:
    """I1: two certified outcomes are shown as a conflict by every node that settled the task."""
    for node in scene.honest:
        if 0 < len(node.certificates(task)) < len(outcomes):
            raise Violation("I1", f"{node.index} does not show the conflict about {task[:8]}")


def _check_submitted(scene: Scene, task: Task) -> None:
    """Everybody learns of a submitted task; in calm weather an honest quorum settles it."""
    for node in scene.honest:
        state = node.state(task.id)
        if state is None:
            raise Violation("I6", f"{node.index} never heard of {task.id[:8]}")
    _check_committees(scene, task)
    if not sure(scene, task):
        return
    for node in scene.honest:
        state, found = node.state(task.id), node.certificates(task.id)
        right = executing.outcome(task.args)
        expected = State.AGREED_ERROR if "error" in right else State.AGREED
        if state is not expected or json.loads(found[0])["attempt"] != 0:
            raise Violation("liveness", f"{node.index}: {state}, though the honest are a quorum")


def _check_committees(scene: Scene, task: Task) -> None:
    """5: they are the task's, and no operator has two places in one while another has none."""
    if rules.committees(scene.network, task.id, task.compute_class) != [
        *committees(scene.network, task)
    ]:
        raise Violation("5", f"the committees of {task.id[:8]} are others'")
    members = scene.network.members(task.compute_class)
    operators = {member.peer: member.operator for member in members}
    for committee in committees(scene.network, task):
        places = len({operators[peer] for peer in committee})
        if places < min(len(committee), len(set(operators.values()))):
            raise Violation("5", f"{len(committee)} members of {places} operators on a committee")


def sure(scene: Scene, task: Task) -> bool:
    """Whether the first attempt must settle a task: calm, an honest quorum (specification 1)."""
    committee = committees(scene.network, task)[0]
    honest = sum(_is_honest(scene, peer) for peer in committee)
    return scene.scenario.calm and 2 * honest > len(committee)


def _check_lists(scene: Scene, votes: Sequence[Vote]) -> None:
    """6.3: who commits after the first reveal is on no honest member's list."""
    certain = {task.id for task in scene.submitted if sure(scene, task)}
    for vote in votes:
        if not isinstance(vote, Reveal) or vote.task not in certain or vote.attempt:
            continue
        if not _is_honest(scene, vote.signer):
            continue
        if any(_role(scene, peer) in COPIERS for peer in vote.commits):
            raise Violation("6.3", f"{fixtures.index_of(vote.signer)} listed a copycat's commit")


def _check_evidence(scene: Scene, votes: Sequence[Vote]) -> None:
    """I5: whoever contradicted itself in what the honest hold is proven to each of them."""
    everywhere = set.intersection(*(set(node.tasks()) for node in scene.honest))
    guilty = {
        slot
        for slot, found in _by_slot(votes).items()
        if slot[1] in everywhere and _contradicting(found)
    }
    for node in scene.honest:
        proven = set()
        for text in node.evidence():
            if text not in scene.proven:
                scene.proven[text] = verify_evidence(json.loads(text), scene.network.id)
            found = scene.proven[text]
            if _is_honest(scene, found.signer):
                raise Violation("I5", f"evidence against honest {fixtures.index_of(found.signer)}")
            proven.add((found.signer, found.task, found.attempt))
            scene.report.evidence += 1
        for signer, task, attempt in sorted(guilty - proven):
            raise Violation(
                "I5",
                f"{node.index} has no evidence against {fixtures.index_of(signer)} "
                f"in {task[:8]} attempt {attempt}",
            )


def _votes(scene: Scene) -> Iterator[Vote]:
    seen = set[str]()
    for node in scene.honest:
        for _, text in node.journal.feed(0, 100_000):
            if text in seen:
                continue
            seen.add(text)
            if json.loads(text)["body"]["network"] != scene.network.id:
                raise Violation("journal", f"{node.index} took a message of another network")
            scene.signatures.see(text.encode())
            message = decode(text.encode(), scene.network.id)
            if not isinstance(message, Task):
                yield message


def _by_slot(votes: Sequence[Vote]) -> Mapping[tuple[str, str, int], list[Vote]]:
    found: dict[tuple[str, str, int], list[Vote]] = {}
    for vote in votes:
        found.setdefault((vote.signer, vote.task, vote.attempt), []).append(vote)
    return found


def _contradicting(votes: list[Vote]) -> bool:
    """Whether two of one signer's votes in a round are not both an honest member's.

    The rule of specification 4, told here once more: the product's own is what is checked.
    """
    for kind in (Commit, Reveal, Abstain):
        if len({canonical(v.envelope.body) for v in votes if isinstance(v, kind)}) > 1:
            return True
    promised = {v.commitment for v in votes if isinstance(v, Commit)}
    return any(isinstance(v, Reveal) and promised - {v.commitment} for v in votes)


def _role(scene: Scene, peer: str) -> str:
    return scene.scenario.roles[fixtures.index_of(peer)]


def _is_honest(scene: Scene, peer: str) -> bool:
    return scene.scenario.honest(fixtures.index_of(peer))
