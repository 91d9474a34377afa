"""The checker: what must hold of all databases, logs and gossip after any faults.

It compares three sources: what requesters and the gossip listener observed during the run
(`Observations`), what each database holds in the end (`NodeRecords`), and the logs.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field

from node.storage.reader import DATABASE
from protocol.consensus import certificate
from protocol.consensus.evidence import is_equivocation
from protocol.errors import Rejected
from protocol.network import Network
from protocol.wire.codec import decode
from protocol.wire.encoding import Document
from protocol.wire.messages import Task, Vote, outcome_digest
from scripts.chaos_tool.observers import Event, logged_at, parse_event
from scripts.testnet_tool.nodes import LocalNode

CertifiedOutcomes = frozenset[tuple[str, str]]  # (task id, outcome digest)


@dataclass(slots=True)
class Observations:
    """What was observed during a run. Keys: task ids, node names, Unix seconds."""

    submitted: set[str] = field(default_factory=set)
    certified: dict[str, str] = field(default_factory=dict)
    """Outcome digests by task, from the certificates that requesters received."""
    failures: Counter[str] = field(default_factory=Counter)
    """How many tasks of requesters ended without a certificate, by reason."""
    gossip: set[bytes] = field(default_factory=set)
    """Every envelope that was gossiped."""
    restart_seconds: list[float] = field(default_factory=list)
    """The time from the start of each killed node until it was ready."""
    certified_at_kill: dict[str, CertifiedOutcomes] = field(default_factory=dict)
    """By node: the certificates that its database held at any of its kills."""
    heals: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    """The end of each partition, and the tasks that some node had no certificate for."""


# Reading databases


@dataclass(frozen=True, slots=True)
class NodeRecords:
    """The contents of one node's database."""

    integrity: str  # the answer of SQLite's integrity check; "ok" for an intact file
    states: Mapping[str, str]  # by task
    envelopes: Sequence[str]
    certificates: Sequence[Document]
    certified: CertifiedOutcomes
    accused: Sequence[str]  # peers that evidence is stored against
    own_outcomes: Mapping[str, str]  # digests of the outcomes that this node computed, by task


def read_records(node: LocalNode) -> NodeRecords:
    """Read all of a node's database."""
    with closing(_connect(node)) as db:
        [(integrity,)] = db.execute("PRAGMA integrity_check(1)").fetchall()
        return NodeRecords(
            integrity,
            dict(db.execute("SELECT id, state FROM tasks")),
            [text for (text,) in db.execute("SELECT envelope FROM envelopes ORDER BY seq")],
            [json.loads(text) for (text,) in db.execute("SELECT document FROM certificates")],
            frozenset(db.execute("SELECT task, outcome FROM certificates")),
            [signer for (signer,) in db.execute("SELECT signer FROM evidence")],
            {
                task: outcome_digest(json.loads(text))
                for task, text in db.execute("SELECT task, outcome FROM outcomes")
            },
        )


def read_certified(node: LocalNode) -> CertifiedOutcomes:
    """Return the certified outcomes in a node's database. The node may be running."""
    with closing(_connect(node)) as db:
        return frozenset(db.execute("SELECT task, outcome FROM certificates"))


def read_states(node: LocalNode) -> dict[str, str]:
    """Return the states of all tasks in a node's database. The node may be running."""
    with closing(_connect(node)) as db:
        return dict(db.execute("SELECT id, state FROM tasks"))


def read_own_votes(node: LocalNode, task: str, attempt: int) -> set[str]:
    """Return the types of the votes that a node has signed in one attempt."""
    with closing(_connect(node)) as db:
        rows = db.execute(
            "SELECT type, envelope FROM envelopes WHERE task = ? AND signer = ?",
            (task, node.peer),
        )
        return {kind for kind, text in rows if json.loads(text)["body"].get("attempt") == attempt}


def _connect(node: LocalNode) -> sqlite3.Connection:
    return sqlite3.connect(f"{(node.home / DATABASE).as_uri()}?mode=ro", uri=True, timeout=10.0)


# Checking


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The counts of one network's checks. `violations` describes each problem in words."""

    final_states: Mapping[str, int]  # tasks by state, at the honest node that knows most tasks
    settled: int  # tasks with a certificate
    wrong: int  # certificates that are invalid, or certify what no honest node computed
    lost: int  # certificates that some honest node does not have (any more)
    double: int  # pairs of contradicting votes by an honest key
    accused: int  # stored evidence against honest nodes
    forgotten: int  # votes that are missing from their signer's journal
    votes: int  # distinct votes by honest keys
    violations: tuple[str, ...]


def check(network: Network, nodes: Sequence[LocalNode], observed: Observations) -> CheckResult:
    """Check all databases and logs against each other and against the observations.

    The nodes must be stopped, or must have settled.
    """
    records = {node.name: read_records(node) for node in nodes}
    honest = {node.name: records[node.name] for node in nodes if node.lie is None}
    names = {node.peer: node.name for node in nodes if node.lie is None}
    votes = _honest_votes(network, names.keys(), records.values(), observed)
    wrong, lost = list(_wrong_certificates(network, honest)), list(_lost(observed, honest))
    double, accused = list(_double_votes(votes)), list(_accused(names, honest))
    forgotten = list(_forgotten_votes(votes, names, honest))
    return CheckResult(
        Counter(max((record.states for record in honest.values()), key=len).values()),
        len({task for record in honest.values() for task, _ in record.certified}),
        len(wrong),
        len(lost),
        len(double),
        len(accused),
        len(forgotten),
        len(votes),
        (
            *(*wrong, *lost, *double, *accused, *forgotten),
            *_database_problems(honest),
            *_logged_faults(nodes),
        ),
    )


def agreement_seconds(nodes: Sequence[LocalNode], observed: Observations) -> list[float]:
    """Return the sorted times from the end of a partition to the last node's certificate.

    One for each task that the partition delayed, in seconds.
    """
    logs = [_certified_at(node) for node in nodes]
    return sorted(
        max(times[task] for times in logs) - healed
        for healed, tasks in observed.heals
        for task in tasks
        if all(task in times for times in logs)
    )


def _certified_at(node: LocalNode) -> dict[str, float]:
    events = map(parse_event, node.log.read_bytes().splitlines())
    return {e["task"]: logged_at(e) for e in events if e and e.get("event") == "certificate"}


def _wrong_certificates(network: Network, honest: Mapping[str, NodeRecords]) -> Iterator[str]:
    computed: dict[str, set[str]] = {}
    for record in honest.values():
        for task, digest in record.own_outcomes.items():
            computed.setdefault(task, set()).add(digest)
    for task, digests in computed.items():
        if len(digests) > 1:
            yield f"honest nodes computed different outcomes of {task}"
    for name, record in honest.items():
        for document in record.certificates:
            try:
                verified = certificate.verify(document, network)
            except Rejected as rejected:
                yield f"{name} stores an invalid certificate: {rejected}"
                continue
            if verified.votes[0].digest not in computed.get(verified.task.id, ()):
                yield f"{name} stores a wrong certificate of {verified.task.id}"


def _lost(observed: Observations, honest: Mapping[str, NodeRecords]) -> Iterator[str]:
    """Find certificates that existed anywhere at any time, and are not at every node now."""
    for name, record in honest.items():
        for task, _ in observed.certified_at_kill.get(name, frozenset()) - record.certified:
            yield f"{name} lost the certificate of {task} that it stored before it was killed"
    received = frozenset(observed.certified.items())
    for task, digest in received.union(*(record.certified for record in honest.values())):
        without = [
            name for name, record in honest.items() if (task, digest) not in record.certified
        ]
        if without:
            yield f"task {task} is certified, but not at {', '.join(without)}"


def _accused(names: Mapping[str, str], honest: Mapping[str, NodeRecords]) -> Iterator[str]:
    for name, record in honest.items():
        for signer in names.keys() & set(record.accused):
            yield f"{name} stores evidence against the honest {names[signer]}"


def _honest_votes(
    network: Network, honest: Set[str], records: Iterable[NodeRecords], observed: Observations
) -> list[Vote]:
    """Return the distinct votes by `honest` peers in any database or in gossip."""
    stored = ({text.encode() for text in record.envelopes} for record in records)
    votes = []
    for envelope in sorted(observed.gossip.union(*stored)):
        try:
            message = decode(envelope, network.id)
        except Rejected:
            continue
        if not isinstance(message, Task) and message.signer in honest:
            votes.append(message)
    return votes


def _double_votes(votes: list[Vote]) -> Iterator[str]:
    attempts: dict[tuple[str, str, int], list[Vote]] = {}
    for vote in votes:
        attempts.setdefault((vote.signer, vote.task, vote.attempt), []).append(vote)
    for (signer, task, attempt), cast in attempts.items():
        if any(is_equivocation(a, b) for i, a in enumerate(cast) for b in cast[:i]):
            yield f"{signer} signed two contradicting votes in attempt {attempt} of {task}"


def _forgotten_votes(
    votes: Iterable[Vote], names: Mapping[str, str], honest: Mapping[str, NodeRecords]
) -> Iterator[str]:
    """Find votes that were sent before they were journalled, or that a journal has lost."""
    journals = {name: set(record.envelopes) for name, record in honest.items()}
    for vote in votes:
        name = names[vote.signer]
        if vote.envelope.encode().decode() not in journals[name]:
            yield f"{name} has not stored its own vote in attempt {vote.attempt} of {vote.task}"


def _database_problems(honest: Mapping[str, NodeRecords]) -> Iterator[str]:
    """Find damaged databases, and nodes whose final states differ from those of the first node."""
    (first_name, first), *_ = honest.items()
    for name, record in honest.items():
        if record.integrity != "ok":
            yield f"the database of {name} is damaged: {record.integrity}"
        differing = {
            task
            for task in record.states.keys() | first.states.keys()
            if record.states.get(task) != first.states.get(task)
        }
        if differing:
            yield f"{name} and {first_name} differ in the final state of {len(differing)} tasks"


def _logged_faults(nodes: Sequence[LocalNode]) -> Iterator[str]:
    """Find log lines that no injected fault explains: errors, and lines that are not events."""
    for node in nodes:
        faults = [
            line
            for line in node.log.read_bytes().splitlines()
            if (event := parse_event(line)) is None or _is_fault(event)
        ]
        if faults:
            yield f"{node.name} logged {len(faults)} faults: {faults[0][:300]!r}"


def _is_fault(event: Event) -> bool:
    if event.get("level") in ("error", "critical"):
        return True
    transport = event.get("logger") == "node.transport.libp2p.transport"
    return transport and " failed: " in str(event["event"])
