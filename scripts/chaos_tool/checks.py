"""What must hold of the databases, whatever was done to their nodes; read with the nodes gone."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from protocol.consensus import certificate
from protocol.consensus.evidence import contradict
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire.codec import decode
from protocol.wire.messages import Task, Vote
from scripts.chaos_tool.noted import Noted
from scripts.chaos_tool.stores import Holdings, holdings
from scripts.chaos_tool.tail import Event, at, parsed
from scripts.testnet_tool.nodes import Place


@dataclass(frozen=True, slots=True)
class Inspected:
    """The figures of one network; `violations` says in words what should not be."""

    ends: Mapping[str, int]  # tasks by how they ended, at the honest node that says most of them
    settled: int  # tasks with a certificate
    wrong: int
    lost: int
    double: int
    accused: int
    forgotten: int  # votes that are known, but not to their signer
    votes: int  # different ones, signed by honest keys
    violations: tuple[str, ...]


def inspect(network: Network, places: Sequence[Place], noted: Noted) -> Inspected:
    """Compare all that the nodes kept, were seen to hold, and were heard to say."""
    kept = {place.name: holdings(place) for place in places}
    honest = {place.name: kept[place.name] for place in places if place.lie is None}
    names = {place.peer: place.name for place in places if place.lie is None}
    votes = _votes(network, names.keys(), kept.values(), noted)
    wrong, lost = list(_wrong(network, honest)), list(_lost(noted, honest))
    double, accused = list(_double(votes)), list(_accused(names, honest))
    forgotten = list(_forgotten(votes, names, honest))
    return Inspected(
        Counter(max((held.states for held in honest.values()), key=len).values()),
        len({task for held in honest.values() for task, _ in held.certified}),
        len(wrong),
        len(lost),
        len(double),
        len(accused),
        len(forgotten),
        len(votes),
        (
            *(*wrong, *lost, *double, *accused, *forgotten),
            *_unalike(honest),
            *_complaints(places),
        ),
    )


def _wrong(network: Network, honest: Mapping[str, Holdings]) -> Iterator[str]:
    """Name certificates that are not valid, or not of what honest nodes got when they executed."""
    right: dict[str, set[str]] = {}
    for held in honest.values():
        for task, digest in held.outcomes.items():
            right.setdefault(task, set()).add(digest)
    for task, digests in right.items():
        if len(digests) > 1:
            yield f"honest nodes got different outcomes of {task}"
    for name, held in honest.items():
        for document in held.certificates:
            try:
                found = certificate.verify(document, network)
            except Rejected as rejected:
                yield f"{name} holds a certificate that is not valid: {rejected}"
                continue
            if found.votes[0].digest not in right.get(found.task.id, ()):
                yield f"{name} holds a wrong certificate of {found.task.id}"


def _lost(noted: Noted, honest: Mapping[str, Holdings]) -> Iterator[str]:
    """Name what was certified somewhere at some time, and is not everywhere in the end."""
    for name, held in honest.items():
        for task, _ in noted.kept.get(name, frozenset()) - held.certified:
            yield f"{name} lost the certificate of {task} that it held when it was killed"
    told = frozenset(noted.certified.items())
    for task, digest in told.union(*(held.certified for held in honest.values())):
        without = [name for name, held in honest.items() if (task, digest) not in held.certified]
        if without:
            yield f"task {task} is certified, but not at {', '.join(without)}"


def _accused(names: Mapping[str, str], honest: Mapping[str, Holdings]) -> Iterator[str]:
    """Name honest nodes, whose `names` by peer are given, that evidence is held against."""
    for name, held in honest.items():
        for signer in names.keys() & set(held.accused):
            yield f"{name} holds evidence against honest {names[signer]}"


def _votes(
    network: Network, honest: Set[str], kept: Iterable[Holdings], noted: Noted
) -> list[Vote]:
    """Return the different votes by honest keys in any database or gossip."""
    texts = noted.heard.union(*({text.encode() for text in held.envelopes} for held in kept))
    found = []
    for text in sorted(texts):
        try:
            message = decode(text, network.id)
        except Rejected:
            continue
        if not isinstance(message, Task) and message.signer in honest:
            found.append(message)
    return found


def _double(votes: list[Vote]) -> Iterator[str]:
    """Name the rounds in which an honest key signed what contradicts itself."""
    rounds: dict[tuple[str, str, int], list[Vote]] = {}
    for vote in votes:
        rounds.setdefault((vote.signer, vote.task, vote.attempt), []).append(vote)
    for (signer, task, attempt), cast in rounds.items():
        if any(contradict(a, b) for i, a in enumerate(cast) for b in cast[:i]):
            yield f"{signer} signed two votes for attempt {attempt} of {task}"


def _forgotten(
    votes: Iterable[Vote], names: Mapping[str, str], honest: Mapping[str, Holdings]
) -> Iterator[str]:
    """Name votes that were sent, and stand not in the journal of the node that signed them."""
    journals = {name: set(held.envelopes) for name, held in honest.items()}
    for vote in votes:
        name = names[vote.signer]
        if vote.envelope.encode().decode() not in journals[name]:
            yield f"{name} does not know its own vote in attempt {vote.attempt} of {vote.task}"


def _unalike(honest: Mapping[str, Holdings]) -> Iterator[str]:
    """Name nodes whose databases are damaged or disagree on how tasks ended."""
    names = list(honest)
    for name, held in honest.items():
        if held.whole != "ok":
            yield f"the database of {name} is damaged: {held.whole}"
        differing = {
            task
            for task in held.tasks | honest[names[0]].tasks
            if held.states.get(task) != honest[names[0]].states.get(task)
        }
        if differing:
            yield f"{name} and {names[0]} differ on how {len(differing)} tasks ended"


def _complaints(places: Sequence[Place]) -> Iterator[str]:
    """Name nodes that logged what none of the faults excuses."""
    for place in places:
        lines = place.log.read_bytes().splitlines()
        faults = [line for line in lines if (event := parsed(line)) is None or _is_fault(event)]
        if faults:
            yield f"{place.name} logged {len(faults)} faults: {faults[0][:300]!r}"


def _is_fault(event: Event) -> bool:
    if event.get("level") in ("error", "critical"):
        return True
    return event.get("logger") == "node.transport.libp2p.transport" and " failed: " in str(
        event["event"]
    )


def agreement_times(places: Sequence[Place], noted: Noted) -> list[float]:
    """Return the seconds from a heal to the last node's certificate, sorted.

    One for each task that the partition held up.
    """
    logged = [_certified_at(place) for place in places]
    return sorted(
        max(times[task] for times in logged) - healed
        for healed, tasks in noted.heals
        for task in tasks
        if all(task in times for times in logged)
    )


def _certified_at(place: Place) -> dict[str, float]:
    events = map(parsed, place.log.read_bytes().splitlines())
    return {e["task"]: at(e) for e in events if e and e.get("event") == "certificate"}
