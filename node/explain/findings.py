"""Where a member's outcome differs from the certified one, level by level.

The levels are the steps by which an outcome is computed: runtime, weights, tokens, work, score,
waveform. The first one that differs says where to look. Everything in a trace is only what its
signer states.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.explain import trace as traces
from node.explain.trace import Tokens, Trace
from node.explain.waveform_diff import WaveformDifference
from protocol.consensus.certificate import Certificate
from protocol.consensus.conduct import VoteOutcome, vote_outcome
from protocol.consensus.vote_set import VoteSet
from protocol.manifest import CHUNK_BYTES, WAVEFORM, outputs_of, tokens_of
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Abstain, Commit, Reveal, Task

# Differing fields of a runtime that are listed: one line stays readable.
MAX_FIELDS = 4
# Bytes of a sample (specification 8: binary32).
_SAMPLE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Reference:
    """The outcome that members are compared with, and the members that revealed it."""

    outcome: Document
    digest: str
    supporters: tuple[str, ...]
    tokens: Tokens | None
    certified: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One level: whether it is the same, None if that is not known, and how it differs."""

    level: str
    same: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class DifferingWaveform:
    """A waveform whose manifest entry differs; `output` is its index in the manifest.

    `chunk` is the index of the first of `chunks` chunks with another hash; no sample before
    `frame` differs. `difference` compares the samples. If it is None, `missing` says why they
    could not be fetched.
    """

    output: int
    chunk: int
    chunks: int
    frame: int
    sampling_rate: int
    difference: WaveformDifference | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Activity:
    """What a member did last in the task's attempts; `abstained` is its reason, or "".

    `inconstant`: it revealed different outcomes in different attempts.
    """

    peer: str
    attempt: int
    conduct: VoteOutcome
    reveal: Reveal | None
    committed: bool
    abstained: str
    inconstant: bool = False


def find_reference(
    vote_sets: Sequence[VoteSet], certificate: Certificate | None
) -> Reference | None:
    """Return the certified outcome, or without a certificate the one that most members revealed.

    None if no two members agree, or if as many agree on another outcome.
    """
    if certificate is not None:
        return _reference(certificate.votes, certified=True)
    last_reveals = {vote.signer: vote for votes in vote_sets for vote in votes.reveals}
    # At least two members have to agree, and no other outcome may have as many.
    counts = Counter(vote.digest for vote in last_reveals.values()).most_common(2)
    if not counts or counts[0][1] < 2 or (len(counts) == 2 and counts[1][1] == counts[0][1]):
        return None
    supporting = [vote for vote in last_reveals.values() if vote.digest == counts[0][0]]
    return _reference(sorted(supporting, key=lambda vote: vote.signer), certified=False)


def _reference(votes: Sequence[Reveal], *, certified: bool) -> Reference:
    tokens = traces.most_common_tokens(traces.parse_trace(vote.trace) for vote in votes)
    signers = tuple(vote.signer for vote in votes)
    return Reference(votes[0].outcome, votes[0].digest, signers, tokens, certified)


def attempts_with_votes(vote_sets: Sequence[VoteSet]) -> Sequence[VoteSet]:
    """Return the attempts up to the last one with a vote, and at least the first."""
    # Later attempts exist in the protocol from the start; without a vote they never began.
    voted = [
        attempt
        for attempt, votes in enumerate(vote_sets)
        if any(
            votes.has(peer, kind) for peer in votes.committee for kind in (Commit, Reveal, Abstain)
        )
    ]
    return vote_sets[: max(voted, default=0) + 1]


def activity_of(vote_sets: Sequence[VoteSet], peer: str, digest: str | None) -> Activity | None:
    """Return a member's last reveal, or its last other vote; None if it is in no committee.

    `digest` is the certified outcome's, None without a certificate.
    """
    seats = [(attempt, votes) for attempt, votes in enumerate(vote_sets) if peer in votes.committee]
    if not seats:
        return None
    # A reveal says more than a later commit or abstention, which has no outcome to compare.
    revealed = [seat for seat in seats if seat[1].votes_of(peer)[0] is not None]
    voted = [s for s in seats if s[1].has(peer, Commit) or s[1].has(peer, Abstain)]
    attempt, votes = (revealed or voted or seats[:1])[-1]
    reveal, abstain = votes.votes_of(peer)
    return Activity(
        peer,
        attempt,
        vote_outcome(votes, peer, digest),
        reveal,
        votes.has(peer, Commit),
        "" if abstain is None else str(abstain.reason),
        inconstant=len({reveal.digest for reveal in _first_reveals(vote_sets, peer)}) > 1,
    )


def _first_reveals(vote_sets: Sequence[VoteSet], peer: str) -> Iterator[Reveal]:
    for votes in vote_sets:
        reveal, _ = votes.votes_of(peer)
        if reveal is not None:
            yield reveal


def compare(task: Task, network: Network, reference: Reference, reveal: Reveal) -> list[Finding]:
    """Return how a reveal's trace and outcome differ from the reference, level by level."""
    trace = traces.parse_trace(reveal.trace)
    levels = [
        _runtime(trace, network.classes[task.compute_class]),
        _weights(trace, network.models[task.model].digest),
        _tokens(reference.tokens, trace.tokens),
    ]
    # An error has no outputs, so there is nothing below it to compare.
    if "error" in reference.outcome or "error" in reveal.outcome:
        detail = f"{_summary(reveal.outcome)}; the others: {_summary(reference.outcome)}"
        return [*levels, Finding("outcome", reference.digest == reveal.digest, detail)]
    work = _work(reference.outcome, reveal.outcome)
    return [*levels, *work, *_outputs(reference.outcome, reveal.outcome)]


def _summary(outcome: Document) -> str:
    return f"fails with {outcome['error']}" if "error" in outcome else "has a result"


def _runtime(trace: Trace, class_definition: Mapping[str, object]) -> Finding:
    if trace.runtime is None:
        return Finding("runtime", None, "not in its trace")
    fields = traces.runtime_differences(trace.runtime, class_definition)
    if not fields:
        return Finding("runtime", True, "the class's")
    more = f", and {len(fields) - MAX_FIELDS} more" if len(fields) > MAX_FIELDS else ""
    return Finding("runtime", False, "; ".join(fields[:MAX_FIELDS]) + more)


def _weights(trace: Trace, listed: str) -> Finding:
    if trace.weights is None:
        return Finding("weights", None, "not in its trace")
    if trace.weights == listed:
        return Finding("weights", True, "those that the network lists")
    return Finding("weights", False, f"{trace.weights[:16]}.., the network lists {listed[:16]}..")


def _tokens(reference: Tokens | None, tokens: Tokens | None) -> Finding:
    if tokens is None:
        return Finding("tokens", None, "not in its trace")
    if reference is None:
        return Finding("tokens", None, "not in the others' traces")
    difference = traces.first_difference(reference, tokens)
    if difference is None:
        blocks = sum(len(blocks) for blocks in tokens.digests)
        partial = "" if reference.complete and tokens.complete else ", as far as both traces go"
        return Finding("tokens", True, f"the same in all {blocks} blocks of 64 steps{partial}")
    exact = difference.first == difference.last
    steps = f"step {difference.first}"
    if not exact:
        steps = f"steps {difference.first} to {difference.last}"
    sequence = f" of sequence {difference.sequence}" if len(reference.digests) > 1 else ""
    verb = "one ends" if difference.ended else "they differ"
    return Finding("tokens", False, f"{verb} {'at' if exact else 'first in'} {steps}{sequence}")


def _work(reference: Document, outcome: Document) -> list[Finding]:
    """Return how the work of two results differs; nothing for tasks that prove none.

    Unlike those of a trace, these tokens are part of the outcome.
    """
    if "work" not in reference and "work" not in outcome:
        return []
    pairs = zip(outputs_of(reference), outputs_of(outcome), strict=False)
    for index, (expected, actual) in enumerate(pairs):
        if tokens_of(expected) != tokens_of(actual):
            return [Finding("work", False, f"other tokens of output {index}")]
    if reference.get("work") != outcome.get("work"):
        return [Finding("work", False, "the same tokens, but other logits")]
    return [Finding("work", True, "the same tokens and logits")]


def _outputs(reference: Document, outcome: Document) -> list[Finding]:
    expected, actual = outputs_of(reference), outputs_of(outcome)
    # Outputs are compared by position, which is meaningful only for equal lists of kinds.
    if [entry["media"] for entry in expected] != [entry["media"] for entry in actual]:
        detail = f"{len(actual)} outputs, the others have {len(expected)}, or of other kinds"
        return [Finding("waveform", False, detail)]
    return [
        _output(index, a, b, alone=len(expected) == 1)
        for index, (a, b) in enumerate(zip(expected, actual, strict=True))
    ]


def _output(
    index: int, expected: Mapping[str, Any], actual: Mapping[str, Any], *, alone: bool
) -> Finding:
    level = "waveform" if expected["media"] == WAVEFORM else "score"
    prefix = "" if alone else f"output {index}: "
    # Tokens are not of this level.
    if {**expected, "tokens": None} == {**actual, "tokens": None}:
        return Finding(level, True, f"{prefix}the same")
    facts = [
        f"{name} {actual[name]}, the others have {expected[name]}"
        for name in ("sampling_rate", "channels", "frames", "notes", "size")
        if expected.get(name) != actual.get(name)
    ]
    waveform = differing_waveform(index, expected, actual)
    if waveform is not None:
        facts.append(_chunk_fact(waveform, min(len(expected["chunks"]), len(actual["chunks"]))))
    return Finding(level, False, prefix + ("; ".join(facts) or "other bytes"))


def _chunk_fact(waveform: DifferingWaveform, common: int) -> str:
    if waveform.chunk == common:
        return "the chunks are the same as far as both go"
    return (
        f"chunk {waveform.chunk + 1} of {waveform.chunks} is the first that differs, "
        f"from {waveform.frame / waveform.sampling_rate:.2f} s on"
    )


def differing_waveforms(reference: Document, outcome: Document) -> list[DifferingWaveform]:
    """Return the waveforms of two results that differ and can be compared."""
    pairs = zip(outputs_of(reference), outputs_of(outcome), strict=False)
    waveforms = (differing_waveform(index, a, b) for index, (a, b) in enumerate(pairs))
    return [waveform for waveform in waveforms if waveform is not None]


def differing_waveform(
    index: int, expected: Mapping[str, Any], actual: Mapping[str, Any]
) -> DifferingWaveform | None:
    """Return where two manifest entries' chunks differ; None if samples cannot be compared."""
    # Chunks hash bytes: with another rate or channel count, equal offsets are not equal times.
    comparable = expected["media"] == actual["media"] == WAVEFORM and all(
        expected[name] == actual[name] for name in ("sampling_rate", "channels")
    )
    if not comparable or expected["sha256"] == actual["sha256"]:
        return None
    pairs = list(zip(expected["chunks"], actual["chunks"], strict=False))
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    frame = first * CHUNK_BYTES // (_SAMPLE_BYTES * expected["channels"])
    return DifferingWaveform(index, first, len(actual["chunks"]), frame, expected["sampling_rate"])
