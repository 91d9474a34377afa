"""In a sentence: what it points to that a member's outcome is another one, or that it has none."""

from collections.abc import Sequence

from node.explain.findings import Finding, Part, Reference, Subject
from protocol.consensus.conduct import VoteOutcome


def reason(
    subject: Subject, ours: Reference | None, found: Sequence[Finding], parts: Sequence[Part]
) -> str:
    """Return what the first level that differs points to, or what came instead of a result."""
    if subject.reveal is None:
        return _absent(subject)
    if ours is None:
        return "No two members agree more than others do: there is nothing to compare it with."
    if subject.reveal.digest == ours.digest:
        return _agreed(subject, ours)
    differing = [finding for finding in found if finding.same is False]
    said = _differing(differing[0], [f.level for f in found if f.same is None], parts)
    if subject.conduct is VoteOutcome.EQUIVOCATED:
        said += " It also contradicted itself: see helium evidence."
    return said


def _absent(subject: Subject) -> str:
    if subject.conduct is VoteOutcome.EQUIVOCATED:
        return "It contradicted itself before it revealed anything: see helium evidence."
    if subject.abstained:
        return f"It abstained: {subject.abstained}. It has no result to compare."
    if subject.committed:
        return (
            "It committed to an outcome and did not reveal it, as far as the nodes asked know: it "
            "went away, was cut off, or withheld it."
        )
    return (
        "It neither committed nor abstained, as far as the nodes asked know: it was away, cut off, "
        "or slower than the others."
    )


def _agreed(subject: Subject, ours: Reference) -> str:
    if subject.conduct is VoteOutcome.EQUIVOCATED:
        return "It agreed, but contradicted itself besides: see helium evidence."
    if subject.conduct is VoteOutcome.LATE:
        return (
            "It has the certified outcome, but committed after the others had closed their lists: "
            "it was slow or cut off, or copied what the others revealed."
        )
    return "It agreed." if ours.certified else "It is among those that agree."


def _differing(first: Finding, unknown: Sequence[str], parts: Sequence[Part]) -> str:
    match first.level:
        case "runtime":
            return (
                "It computes with another runtime, so it is not of the class: it should not have "
                "voted, and other bytes are to be expected of it."
            )
        case "weights":
            return "It loaded other weights than the network lists: not the same model."
        case "tokens":
            return (
                f"{_equal(('runtime', 'weights'), unknown)}, but the tokens are not: a numeric "
                "difference in the language model, faulty hardware, another seed or prompt, or a "
                "lie."
            )
        case "outcome":
            return (
                "The members differ on whether the task fails: look for a fault in the machine or "
                "the software of the one side, or an altered outcome."
            )
        case "score":
            return (
                f"{_equal(('tokens',), unknown)}, but the score is not: how tokens become notes, "
                "or an altered result."
            )
        case _:
            return _waveform(_equal(("tokens",), unknown), parts)


def _waveform(so_far: str, parts: Sequence[Part]) -> str:
    known = [part.difference for part in parts if part.difference is not None]
    patterns = {difference.pattern for difference in known if difference.pattern}
    if patterns:
        return (
            f"{so_far}, and its waveform is {' or '.join(sorted(patterns))}: it was altered after "
            "it was computed."
        )
    if known and all(difference.tiny for difference in known):
        return (
            f"{so_far}, and the waveform differs by no more than rounding: the arithmetic of the "
            "codec or of post-processing, so other software or hardware than the class's."
        )
    return (
        f"{so_far}, but the waveform is not: the arithmetic of the codec, post-processing, or an "
        "altered result."
    )


def _equal(levels: Sequence[str], unknown: Sequence[str]) -> str:
    """Say that levels are equal, if that was told."""
    told = [level for level in levels if level not in unknown]
    untold = [level for level in levels if level in unknown]
    said = f"{' and '.join(told).capitalize()} are the same" if told else ""
    missing = f"{' and '.join(untold)} {'are' if said else 'is'} not told" if untold else ""
    return ", ".join(part for part in (said, missing.capitalize() if not said else missing) if part)
