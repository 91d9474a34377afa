"""Why a member's outcome is not the one that was certified, from what both have signed.

Level by level, as an outcome comes about: runtime, weights, tokens, score, waveform. The first that
differs says where to look. Everything in a trace is what its signer says of itself.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.explain import trace as traces
from node.explain.trace import Tokens, Trace
from node.explain.waveform_diff import Difference
from protocol.consensus.certificate import Certificate
from protocol.consensus.conduct import VoteOutcome, vote_outcome
from protocol.consensus.vote_set import VoteSet
from protocol.manifest import CHUNK_BYTES, WAVEFORM, outputs_of
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstain, Commit, Reveal, Task

SHOWN = 4  # differing fields of a runtime that are named


@dataclass(frozen=True, slots=True)
class Reference:
    """What a member's outcome is compared with, and who has it."""

    outcome: Document
    digest: str
    supporters: tuple[str, ...]
    tokens: Tokens | None
    certified: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One level: whether it is the same, None where that cannot be told, and in what it is not."""

    level: str
    same: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Part:
    """A waveform of a member's result that differs: output `output`, from 0.

    The manifests say that the first chunk, of `chunks`, that differs is `chunk`, from 0: nothing
    differs before frame `frame`. `difference` compares the samples; None where they were not to be
    had, `missing` then says why.
    """

    output: int
    chunk: int
    chunks: int
    frame: int
    sampling_rate: int
    difference: Difference | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A member's part in a task: what it did last, and its reveal if there is one."""

    peer: str
    attempt: int
    conduct: VoteOutcome
    reveal: Reveal | None
    committed: bool
    abstained: str


def reference_of(rounds: Sequence[VoteSet], certificate: Certificate | None) -> Reference | None:
    """Return the certified outcome, or where none is, the one that most members revealed.

    None where no two members agree, or as many agree on another one.
    """
    if certificate is not None:
        return _reference(certificate.votes, certified=True)
    last = {vote.signer: vote for votes in rounds for vote in votes.reveals}
    counts = Counter(vote.digest for vote in last.values()).most_common(2)
    if not counts or counts[0][1] < 2 or (len(counts) == 2 and counts[1][1] == counts[0][1]):
        return None
    found = [vote for vote in last.values() if vote.digest == counts[0][0]]
    return _reference(sorted(found, key=lambda vote: vote.signer), certified=False)


def _reference(votes: Sequence[Reveal], *, certified: bool) -> Reference:
    tokens = traces.most_common_tokens(traces.read(vote.trace) for vote in votes)
    signers = tuple(vote.signer for vote in votes)
    return Reference(votes[0].outcome, votes[0].digest, signers, tokens, certified)


def attempts_with_votes(rounds: Sequence[VoteSet]) -> Sequence[VoteSet]:
    """Return the attempts up to the last one in which anybody voted, and the first at least."""
    voted = [
        attempt
        for attempt, votes in enumerate(rounds)
        if any(
            votes.has(peer, kind) for peer in votes.committee for kind in (Commit, Reveal, Abstain)
        )
    ]
    return rounds[: max(voted, default=0) + 1]


def subject_of(rounds: Sequence[VoteSet], peer: str, digest: str | None) -> Subject | None:
    """Return a member's part: its last reveal, or what it did last; None if it never was one.

    `digest` is the certified outcome's, None where there is none.
    """
    seats = [(attempt, votes) for attempt, votes in enumerate(rounds) if peer in votes.committee]
    if not seats:
        return None
    revealed = [seat for seat in seats if seat[1].votes_of(peer)[0] is not None]
    active = [s for s in seats if s[1].has(peer, Commit) or s[1].has(peer, Abstain)]
    attempt, votes = (revealed or active or seats[:1])[-1]
    reveal, abstain = votes.votes_of(peer)
    return Subject(
        peer,
        attempt,
        vote_outcome(votes, peer, digest),
        reveal,
        votes.has(peer, Commit),
        "" if abstain is None else str(abstain.reason),
    )


def findings(task: Task, network: Network, ours: Reference, theirs: Reveal) -> list[Finding]:
    """Return what a reveal's trace and outcome say, level by level, of where it parts."""
    trace = traces.read(theirs.trace)
    levels = [_runtime(trace, network.classes[task.compute_class]), _weights(task, network, trace)]
    levels.append(_tokens(ours.tokens, trace.tokens))
    if "error" in ours.outcome or "error" in theirs.outcome:
        said = f"{_told(theirs.outcome)}; the others: {_told(ours.outcome)}"
        return [*levels, Finding("outcome", ours.digest == theirs.digest, said)]
    return [*levels, *_outputs(ours.outcome, theirs.outcome)]


def _runtime(trace: Trace, defined: Mapping[str, object]) -> Finding:
    if trace.runtime is None:
        return Finding("runtime", None, "its trace does not tell its runtime")
    differing = traces.runtime_differences(trace.runtime, defined)
    if not differing:
        return Finding("runtime", True, "the class's")
    more = f", and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    return Finding("runtime", False, "; ".join(differing[:SHOWN]) + more)


def _weights(task: Task, network: Network, trace: Trace) -> Finding:
    if trace.weights is None:
        return Finding("weights", None, "its trace does not tell its weights")
    listed = network.models[task.model].digest
    if trace.weights == listed:
        return Finding("weights", True, "those that the network lists")
    return Finding("weights", False, f"{trace.weights[:16]}.., the network lists {listed[:16]}..")


def _tokens(ours: Tokens | None, theirs: Tokens | None) -> Finding:
    if theirs is None or ours is None:
        whose = "its trace does not tell its" if theirs is None else "no other trace tells the"
        return Finding("tokens", None, f"{whose} tokens")
    parted = traces.first_difference(ours, theirs)
    if parted is None:
        blocks = sum(len(blocks) for blocks in theirs.digests)
        part = "" if ours.complete and theirs.complete else ", as far as both traces tell"
        return Finding("tokens", True, f"the same in all {blocks} blocks of 64 steps{part}")
    exact = parted.first == parted.last
    steps = f"step {parted.first}" if exact else f"steps {parted.first} to {parted.last}"
    where = f" of sequence {parted.sequence}" if len(ours.digests) > 1 else ""
    what = "one ends" if parted.ended else "they differ"
    return Finding("tokens", False, f"{what} {'at' if exact else 'first in'} {steps}{where}")


def _outputs(ours: Document, theirs: Document) -> list[Finding]:
    one, other = outputs_of(ours), outputs_of(theirs)
    if [o["media"] for o in one] != [o["media"] for o in other]:
        said = f"{len(other)} outputs, the others have {len(one)}, or of other kinds"
        return [Finding("waveform", False, said)]
    return [
        _output(index, a, b, alone=len(one) == 1)
        for index, (a, b) in enumerate(zip(one, other, strict=True))
    ]


def _output(index: int, ours: Mapping[str, Any], theirs: Mapping[str, Any], alone: bool) -> Finding:
    level = "waveform" if ours["media"] == WAVEFORM else "score"
    where = "" if alone else f"output {index}: "
    if ours == theirs:
        return Finding(level, True, f"{where}the same")
    facts = [
        f"{name} {theirs[name]}, the others have {ours[name]}"
        for name in ("sampling_rate", "channels", "frames", "notes", "size")
        if ours.get(name) != theirs.get(name)
    ]
    found = part(index, ours, theirs)
    if found is not None and found.chunk == min(len(ours["chunks"]), len(theirs["chunks"])):
        facts.append("the chunks are the same as far as both go")
    elif found is not None:
        facts.append(
            f"chunk {found.chunk + 1} of {found.chunks} is the first that differs, "
            f"from {found.frame / found.sampling_rate:.2f} s on"
        )
    return Finding(level, False, where + ("; ".join(facts) or "other bytes"))


def parts(ours: Document, theirs: Document) -> list[Part]:
    """Return the waveforms of two results that differ and can be compared."""
    pairs = zip(outputs_of(ours), outputs_of(theirs), strict=False)
    found = (part(index, a, b) for index, (a, b) in enumerate(pairs))
    return [each for each in found if each is not None]


def part(index: int, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Part | None:
    """Return where two manifest entries' chunks part; None where that says nothing of samples."""
    comparable = ours["media"] == theirs["media"] == WAVEFORM and all(
        ours[name] == theirs[name] for name in ("sampling_rate", "channels")
    )
    if not comparable or ours["sha256"] == theirs["sha256"]:
        return None
    pairs = list(zip(ours["chunks"], theirs["chunks"], strict=False))
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    frame = first * CHUNK_BYTES // (4 * ours["channels"])
    return Part(index, first, len(theirs["chunks"]), frame, ours["sampling_rate"])


def _told(outcome: Document) -> str:
    return f"fails with {outcome['error']}" if "error" in outcome else "has a result"
