"""What the first differing level, or a missing result, points to: one sentence each."""

from collections.abc import Sequence

from node.explain.findings import Activity, DifferingWaveform, Finding, Reference
from protocol.consensus.conduct import VoteOutcome

NOTHING_TO_COMPARE = (
    "No two members agree more than others do: there is nothing to compare it with."
)

# By the first level that differs. A cause is a place to look, not a proof.
_CAUSES = {
    "runtime": "Its runtime is not the class's, so it should not have voted.",
    "weights": "It loaded other weights than the network lists: another model.",
    "tokens": "The tokens differ: arithmetic of the language model, faulty hardware, or a lie.",
    "work": "The work differs: other arithmetic, other tokens, or steps that it did not compute.",
    "outcome": "The members differ on whether the task fails: a fault on one side, or a lie.",
    "score": "The score differs: the step from tokens to notes, or an altered result.",
    "waveform": "The waveform differs: codec, post-processing, or an altered result.",
}
_ROUNDING = "The waveform differs by no more than rounding: other software or hardware."
_EQUIVOCATED = "It also contradicted itself: see helium evidence."

_INCONSTANT = "It revealed different outcomes in different attempts: see helium evidence."

_LATE = (
    "It has the certified outcome but committed after the others had closed their lists: it was "
    "slow, disconnected, or copied what the others revealed."
)
_WITHHELD = (
    "It committed to an outcome but no node asked has its reveal: it disconnected or withheld it."
)
_SILENT = (
    "It neither committed nor abstained, as far as the nodes asked know: it was disconnected or "
    "slower than the others."
)


def reason(
    activity: Activity,
    reference: Reference | None,
    findings: Sequence[Finding],
    waveforms: Sequence[DifferingWaveform],
) -> str:
    """Return why a member's outcome is not the reference, in one to three sentences."""
    text = _reason(activity, reference, findings, waveforms)
    return f"{text} {_INCONSTANT}" if activity.inconstant else text


def _reason(
    activity: Activity,
    reference: Reference | None,
    findings: Sequence[Finding],
    waveforms: Sequence[DifferingWaveform],
) -> str:
    if activity.reveal is None:
        return _without_result(activity)
    if reference is None:
        return NOTHING_TO_COMPARE
    if activity.reveal.digest == reference.digest:
        return _agreed(activity, reference)
    # Each level follows from the one before it: the first difference explains the later ones.
    level = next(finding.level for finding in findings if finding.same is False)
    differences = [w.difference for w in waveforms if w.difference is not None]
    rounding = bool(differences) and all(d.is_rounding for d in differences)
    text = _ROUNDING if level == "waveform" and rounding else _CAUSES[level]
    return f"{text} {_EQUIVOCATED}" if _equivocated(activity) else text


def _without_result(activity: Activity) -> str:
    if _equivocated(activity):
        return "It contradicted itself and revealed nothing: see helium evidence."
    if activity.abstained:
        return f"It abstained: {activity.abstained}."
    return _WITHHELD if activity.committed else _SILENT


def _agreed(activity: Activity, reference: Reference) -> str:
    if _equivocated(activity):
        return f"It agreed. {_EQUIVOCATED}"
    if activity.conduct is VoteOutcome.LATE:
        return _LATE
    return "It agreed." if reference.certified else "It is among those that agree."


def _equivocated(activity: Activity) -> bool:
    return activity.conduct is VoteOutcome.EQUIVOCATED
