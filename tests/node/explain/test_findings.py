"""Where a member's outcome differs from the certified one, and what that points to."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from node.explain.findings import (
    Activity,
    Finding,
    Reference,
    activity_of,
    attempts_with_votes,
    compare,
    differing_waveforms,
    find_reference,
)
from node.explain.trace import parse_trace
from node.explain.verdict import reason
from node.explain.waveform_diff import WaveformDifference
from protocol.consensus.agreement import Agreement
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.consensus.conduct import VoteOutcome
from protocol.network import Network
from protocol.wire.messages import Reveal, Vote, outcome_digest
from tests.support import fixtures

NET = fixtures.network(5)
TASK = fixtures.task(NET)
FIRST, SECOND = committees(NET, TASK)
A, B, C = FIRST
CLASS: Mapping[str, Any] = {"device": "cpu", "torch": "2.13.0"}
BLOCKS = [f"{n:016x}" for n in range(4)]
TRACE = {"runtime": CLASS, "weights": "d" * 64, "tokens": [BLOCKS], "seconds": 1}
CHUNKS = [f"{n:064x}" for n in range(3)]


def output(label: str, chunks: Sequence[str] = CHUNKS, **changes: Any) -> dict[str, Any]:
    whole = hashlib.sha256(label.encode()).hexdigest()
    entry: dict[str, Any] = {
        "media": "audio/f32",
        "sampling_rate": 32_000,
        "frames": 150_000,
        "channels": 1,
        "sha256": whole,
        "chunks": list(chunks),
    } | changes
    return entry | {"size": 4 * entry["frames"] * entry["channels"]}


def score(label: str, notes: int = 10) -> dict[str, Any]:
    whole = hashlib.sha256(label.encode()).hexdigest()
    return {
        "media": "audio/midi",
        "sha256": whole,
        "size": 200,
        "notes": notes,
        "chunks": [whole],
    }


def result(*outputs: dict[str, Any]) -> dict[str, Any]:
    return {"result": {"outputs": list(outputs)}}


TRUTH = result(output("truth"))
ALTERED = result(output("altered", [CHUNKS[0], "e" * 64, "f" * 64]))
FAILED = {"error": "no-notes"}


def revealed(
    member: str, outcome: dict[str, Any], trace: Mapping[str, Any] = TRACE, attempt: int = 0
) -> Reveal:
    """A reveal that lists the commits of all honest members and its own."""
    commits = {
        m: fixtures.commitment_of(TASK, m, TRUTH, attempt) for m in committees(NET, TASK)[attempt]
    }
    commits[member] = fixtures.commitment_of(TASK, member, outcome, attempt)
    body = fixtures.reveal(NET, TASK, member, commits, outcome, attempt).envelope.body
    vote = fixtures.signed_by(NET, {**body, "trace": trace}, member)
    assert isinstance(vote, Reveal)
    return vote


def observe(*votes: Vote) -> Agreement:
    agreement = Agreement(NET, TASK, "", lambda attempt: "", fixtures.START)
    agreement.start(fixtures.START)
    for vote in votes:
        agreement.receive(vote, fixtures.START)
    return agreement


def certified(agreement: Agreement) -> Certificate:
    return agreement.certificates[0]


HONEST = [revealed(A, TRUTH), revealed(B, TRUTH)]


def explain(
    reveal: Reveal, difference: WaveformDifference | None = None
) -> tuple[dict[str, bool | None], str, list[Finding]]:
    """The levels, the reason and the findings of C's reveal beside two honest ones."""
    reference, activity = compared(*HONEST, reveal)
    assert activity.reveal is not None
    findings = compare(TASK, NET, reference, activity.reveal)
    waveforms = [
        replace(waveform, difference=difference)
        for waveform in differing_waveforms(reference.outcome, activity.reveal.outcome)
    ]
    levels = {finding.level: finding.same for finding in findings}
    return levels, reason(activity, reference, findings, waveforms), findings


def compared(*votes: Vote) -> tuple[Reference, Activity]:
    """The certified reference among these votes, and what C did."""
    agreement = observe(*votes)
    reference = find_reference(agreement.vote_sets, certified(agreement))
    assert reference is not None
    activity = activity_of(agreement.vote_sets, C, reference.digest)
    assert activity is not None
    return reference, activity


def difference_at(level: float | None) -> WaveformDifference:
    return WaveformDifference(70_000, 80_000, 150_000, 0.1, 0.05, level)


# Level by level


def test_equal_outcomes_agree_at_every_level() -> None:
    levels, text, _ = explain(revealed(C, TRUTH))
    assert levels == {"runtime": True, "weights": True, "tokens": True, "waveform": True}
    assert text == "It agreed."


def test_another_runtime_is_not_of_the_class() -> None:
    trace = {**TRACE, "runtime": {**CLASS, "torch": "2.12.0"}, "weights": "e" * 64}
    levels, text, findings = explain(revealed(C, ALTERED, trace))
    assert levels == {"runtime": False, "weights": False, "tokens": True, "waveform": False}
    assert "runtime is not the class's" in text
    assert findings[0].detail == "torch is '2.12.0', the class has '2.13.0'"


def test_only_the_first_differing_fields_are_listed() -> None:
    trace = {**TRACE, "runtime": {f"own-{n}": n for n in range(20)}}
    detail = explain(revealed(C, ALTERED, trace))[2][0].detail
    assert detail.count(";") == 3
    assert detail.endswith(", and 18 more")


def test_other_weights_are_another_model() -> None:
    levels, text, findings = explain(revealed(C, ALTERED, {**TRACE, "weights": "e" * 64}))
    assert (levels["runtime"], levels["weights"]) == (True, False)
    assert "other weights" in text
    assert "e" * 16 in findings[1].detail


def test_other_tokens_point_to_the_language_model() -> None:
    trace = {**TRACE, "tokens": [[*BLOCKS[:2], "f" * 16, "f" * 16]]}
    levels, text, findings = explain(revealed(C, ALTERED, trace))
    assert (levels["weights"], levels["tokens"]) == (True, False)
    assert findings[2].detail == "they differ first in steps 129 to 192"
    assert text.startswith("The tokens differ")


def test_a_waveform_is_located_by_its_first_differing_chunk() -> None:
    levels, text, findings = explain(revealed(C, ALTERED), difference_at(-20.0))
    assert levels == {"runtime": True, "weights": True, "tokens": True, "waveform": False}
    assert text == "The waveform differs: codec, post-processing, or an altered result."
    assert findings[3].detail == "chunk 2 of 3 is the first that differs, from 2.05 s on"


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (difference_at(-120.0), "no more than rounding"),
        (difference_at(-20.0), "codec, post-processing, or an altered result"),
        (difference_at(None), "codec, post-processing, or an altered result"),
        (None, "codec, post-processing, or an altered result"),
    ],
)
def test_the_size_of_a_difference_tells_rounding_from_other_causes(
    difference: WaveformDifference | None, expected: str
) -> None:
    text = explain(revealed(C, ALTERED), difference)[1]
    assert text.startswith("The waveform differs")
    assert expected in text


# Work

HELIUM_NET = Network.of(fixtures.helium_document(5))
HELIUM_TASK = fixtures.task(HELIUM_NET, compute_class=fixtures.HELIUM)


def proven(work: str = "a", tokens: str = "b", label: str = "truth") -> dict[str, Any]:
    blob = {"sha256": tokens * 64, "size": 8}
    return {**result(output(label, tokens=blob)), "work": work * 64}


def explain_work(outcome: dict[str, Any]) -> tuple[list[Finding], str]:
    """The findings below the trace, and the reason, of an outcome beside `proven()`."""
    member = committees(HELIUM_NET, HELIUM_TASK)[0][0]
    runtime = HELIUM_NET.classes[fixtures.HELIUM]
    commits = {member: fixtures.commitment_of(HELIUM_TASK, member, outcome)}
    trace: Any = {**TRACE, "runtime": runtime}
    reveal = fixtures.reveal(HELIUM_NET, HELIUM_TASK, member, commits, outcome, trace=trace)
    reference = Reference(
        proven(), outcome_digest(proven()), (), parse_trace(reveal.trace).tokens, certified=True
    )
    findings = compare(HELIUM_TASK, HELIUM_NET, reference, reveal)
    assert all(finding.same for finding in findings[:3])
    activity = Activity(member, 0, VoteOutcome.DISSENTED, reveal, True, "")
    return findings[3:], reason(activity, reference, findings, ())


def test_equal_work_is_the_same() -> None:
    findings, text = explain_work(proven(label="altered"))
    assert findings[0] == Finding("work", True, "the same tokens and logits")
    assert (findings[1].level, findings[1].same) == ("waveform", False)
    assert text.startswith("The waveform differs")


def test_other_work_differs_though_the_sound_is_the_same() -> None:
    findings, text = explain_work(proven(work="c"))
    assert findings[0] == Finding("work", False, "the same tokens, but other logits")
    assert findings[1] == Finding("waveform", True, "the same")
    assert text.startswith("The work differs")


def test_other_tokens_of_an_outcome_are_of_its_work() -> None:
    findings, text = explain_work(proven(work="c", tokens="d"))
    assert findings[0] == Finding("work", False, "other tokens of output 0")
    assert findings[1] == Finding("waveform", True, "the same")
    assert text.startswith("The work differs")


@pytest.mark.parametrize("trace", [{}, {"tokens": "none", "runtime": 1, "weights": []}])
def test_missing_fields_of_a_trace_are_unknown(trace: dict[str, Any]) -> None:
    levels, text, findings = explain(revealed(C, ALTERED, trace))
    assert levels == {"runtime": None, "weights": None, "tokens": None, "waveform": False}
    assert {finding.detail for finding in findings[:3]} == {"not in its trace"}
    assert text.startswith("The waveform differs")


def test_tokens_that_only_one_trace_has_are_unknown() -> None:
    reference, _ = compared(revealed(A, TRUTH, {}), revealed(B, TRUTH, {}), revealed(C, ALTERED))
    findings = compare(TASK, NET, reference, revealed(C, ALTERED))
    assert findings[2] == Finding("tokens", None, "not in the others' traces")


def test_an_error_beside_results_is_a_level_of_its_own() -> None:
    levels, text, findings = explain(revealed(C, FAILED, {**TRACE, "tokens": []}))
    assert levels == {"runtime": True, "weights": True, "tokens": None, "outcome": False}
    assert findings[-1].detail == "fails with no-notes; the others: has a result"
    assert "whether the task fails" in text


@pytest.mark.parametrize(
    ("outputs", "level", "detail"),
    [
        ([output("x", channels=2, frames=75_000)], "waveform", "channels 2, the others have 1"),
        ([output("x", sampling_rate=16_000)], "waveform", "sampling_rate 16000, the others have"),
        ([output("x", CHUNKS)], "waveform", "the same as far as both go"),
    ],
)
def test_manifests_that_cannot_be_compared_say_why(
    outputs: list[dict[str, Any]], level: str, detail: str
) -> None:
    finding = explain(revealed(C, result(*outputs)))[2][-1]
    assert (finding.level, finding.same) == (level, False)
    assert detail in finding.detail


@pytest.mark.parametrize(
    ("outputs", "detail"),
    [
        ([output("truth"), output("y")], "2 outputs, the others have 1"),
        ([score("x")], "or of other kinds"),
    ],
)
def test_lists_of_outputs_that_differ_in_number_or_media_say_so(
    outputs: list[dict[str, Any]], detail: str
) -> None:
    """No valid vote has such a list, but a program may compare any two outcomes."""
    reference, _ = compared(*HONEST, revealed(C, TRUTH))
    finding = compare(TASK, NET, reference, revealed(C, result(*outputs)))[-1]
    assert (finding.level, finding.same) == ("waveform", False)
    assert detail in finding.detail


def test_a_differing_score_comes_before_its_waveform() -> None:
    reference = Reference(result(score("a"), output("a")), "a" * 64, (A, B), None, certified=True)
    reveal = revealed(C, result(score("b", 11), output("b")))
    findings = compare(TASK, NET, reference, reveal)
    assert [(f.level, f.same) for f in findings[3:]] == [("score", False), ("waveform", False)]
    assert findings[3].detail == "output 0: notes 11, the others have 10"
    waveforms = differing_waveforms(reference.outcome, reveal.outcome)
    assert [waveform.output for waveform in waveforms] == [1]


# References and activities


def test_the_certified_outcome_is_the_reference() -> None:
    reference, _ = compared(*HONEST, revealed(C, ALTERED))
    assert (reference.outcome, reference.certified) == (TRUTH, True)
    assert reference.supporters == tuple(sorted((A, B)))


def test_without_a_certificate_the_most_common_outcome_is_the_reference() -> None:
    votes = [revealed(m, TRUTH, attempt=1) for m in SECOND[:2]]
    lies = [revealed(m, result(output(m)), attempt=1) for m in SECOND[2:]]
    reference = find_reference(observe(*votes, *lies).vote_sets, None)
    assert reference is not None
    assert (reference.digest, reference.certified) == (outcome_digest(TRUTH), False)


@pytest.mark.parametrize("outcomes", [[], [TRUTH], [TRUTH, ALTERED], [TRUTH, ALTERED, FAILED]])
def test_outcomes_that_no_two_members_share_give_no_reference(
    outcomes: list[dict[str, Any]],
) -> None:
    agreement = observe(*(revealed(m, o) for m, o in zip(FIRST, outcomes, strict=False)))
    assert find_reference(agreement.vote_sets, None) is None
    if outcomes:
        activity = activity_of(agreement.vote_sets, A, None)
        assert activity is not None
        assert "nothing to compare" in reason(activity, None, (), ())


def test_a_tie_gives_no_reference() -> None:
    votes = [revealed(m, TRUTH, attempt=1) for m in SECOND[:2]]
    opposing = [revealed(m, ALTERED, attempt=1) for m in SECOND[2:4]]
    assert find_reference(observe(*votes, *opposing).vote_sets, None) is None


@pytest.mark.parametrize(
    ("votes", "conduct", "expected"),
    [
        ([], VoteOutcome.SILENT, "neither committed nor abstained"),
        ([fixtures.commit(NET, TASK, C)], VoteOutcome.SILENT, "disconnected or withheld it"),
        (
            [fixtures.commit(NET, TASK, member, TRUTH) for member in (A, B, C)],
            VoteOutcome.WITHHELD,
            "disconnected or withheld it",
        ),
        (
            [fixtures.abstain(NET, TASK, C, "withdrawn")],
            VoteOutcome.ABSTAINED,
            "It abstained: withdrawn",
        ),
        (
            [fixtures.abstain(NET, TASK, C, "timeout")],
            VoteOutcome.ABSTAINED,
            "It abstained: timeout",
        ),
        (
            [fixtures.commit(NET, TASK, C), fixtures.commit(NET, TASK, C, FAILED)],
            VoteOutcome.EQUIVOCATED,
            "contradicted itself and revealed nothing",
        ),
    ],
)
def test_a_member_without_a_reveal_has_a_reason(
    votes: list[Vote], conduct: VoteOutcome, expected: str
) -> None:
    reference, activity = compared(*HONEST, *votes)
    assert (activity.conduct, activity.reveal) == (conduct, None)
    assert expected in reason(activity, reference, (), ())


def test_a_late_commit_to_the_certified_outcome_is_not_dissent() -> None:
    commits = {member: fixtures.commitment_of(TASK, member, TRUTH) for member in (A, B)}
    reference, activity = compared(
        *(fixtures.reveal(NET, TASK, member, commits, TRUTH) for member in FIRST)
    )
    assert "closed their lists" in reason(activity, reference, (), ())


def test_equivocation_is_added_to_the_reason() -> None:
    reference, activity = compared(*HONEST, revealed(C, ALTERED), revealed(C, FAILED))
    assert activity.reveal is not None
    findings = compare(TASK, NET, reference, activity.reveal)
    text = reason(activity, reference, findings, ())
    assert text.endswith("contradicted itself: see helium evidence.")


def test_different_outcomes_in_different_attempts_are_inconstant() -> None:
    votes = [revealed(m, result(output(m))) for m in FIRST[:2]]
    lost = [revealed(C, ALTERED), *votes]
    agreement = observe(*lost, *(revealed(m, TRUTH, attempt=1) for m in SECOND))
    reference = find_reference(agreement.vote_sets, certified(agreement))
    activity = activity_of(agreement.vote_sets, C, outcome_digest(TRUTH))
    assert activity is not None
    assert (activity.conduct, activity.inconstant) == (VoteOutcome.AGREED, True)
    assert reason(activity, reference, (), ()) == (
        "It agreed. It revealed different outcomes in different attempts: see helium evidence."
    )


def test_the_last_reveal_counts() -> None:
    votes = [
        *(revealed(m, result(output(m))) for m in FIRST),
        *(revealed(m, TRUTH, attempt=1) for m in SECOND),
    ]
    activity = activity_of(observe(*votes).vote_sets, C, outcome_digest(TRUTH))
    assert activity is not None
    assert (activity.attempt, activity.conduct) == (1, VoteOutcome.AGREED)


def test_a_member_of_no_begun_attempt_has_no_activity() -> None:
    later = next(m for m in SECOND if m not in FIRST)
    vote_sets = observe(*HONEST).vote_sets
    assert activity_of(attempts_with_votes(vote_sets), later, None) is None
    assert activity_of(vote_sets, later, None) is not None
    assert len(attempts_with_votes(observe().vote_sets)) == 1
    abstention = fixtures.abstain(NET, TASK, later, attempt=1)
    assert len(attempts_with_votes(observe(abstention).vote_sets)) == 2
