"""Where a member parts from the certified outcome, level by level, and what that points to."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from node.explain.findings import (
    Finding,
    Reference,
    attempts_with_votes,
    findings,
    parts,
    reference_of,
    subject_of,
)
from node.explain.verdict import reason
from node.explain.waveform_diff import Difference
from protocol.consensus.agreement import Agreement
from protocol.consensus.certificate import Certificate
from protocol.consensus.committee import committees
from protocol.consensus.conduct import VoteOutcome
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
    entry = {
        "media": "audio/f32",
        "sampling_rate": 32_000,
        "frames": 150_000,
        "channels": 1,
        "sha256": whole,
        "size": 600_000,
        "chunks": list(chunks),
    }
    return entry | changes


def score(label: str, notes: int = 10) -> dict[str, Any]:
    whole = hashlib.sha256(label.encode()).hexdigest()
    return {"media": "audio/midi", "sha256": whole, "size": 99, "notes": notes}


def result(*outputs: dict[str, Any]) -> dict[str, Any]:
    return {"result": {"outputs": list(outputs)}}


TRUTH = result(output("truth"))
ALTERED = result(output("altered", [CHUNKS[0], "e" * 64, "f" * 64]))
FAILED = {"error": "no-notes"}


def revealed(
    member: str, found: dict[str, Any], trace: Mapping[str, Any] = TRACE, attempt: int = 0
) -> Reveal:
    """A reveal that lists everybody who has the truth, and itself."""
    commits = {m: fixtures.bound(TASK, m, TRUTH, attempt) for m in committees(NET, TASK)[attempt]}
    commits[member] = fixtures.bound(TASK, member, found, attempt)
    body = fixtures.reveal(NET, TASK, member, commits, found, attempt).envelope.body
    vote = fixtures.signed_by(NET, {**body, "trace": trace}, member)
    assert isinstance(vote, Reveal)
    return vote


def seen(*votes: Vote) -> Agreement:
    agreement = Agreement(NET, TASK, "", lambda attempt: "", fixtures.START)
    agreement.start(fixtures.START)
    for vote in votes:
        agreement.receive(vote, fixtures.START)
    return agreement


def certified(agreement: Agreement) -> Certificate:
    return agreement.certificates[0]


HONEST = [revealed(A, TRUTH), revealed(B, TRUTH)]


def explained(
    theirs: Reveal, difference: Difference | None = None
) -> tuple[dict[str, bool | None], str, list[Finding]]:
    """The levels, the sentence and the findings of C's reveal beside two honest ones."""
    agreement = seen(*HONEST, theirs)
    ours = reference_of(agreement.vote_sets, certified(agreement))
    subject = subject_of(agreement.vote_sets, C, ours.digest if ours else None)
    assert ours is not None
    assert subject is not None
    assert subject.reveal is not None
    found = findings(TASK, NET, ours, subject.reveal)
    compared = [
        replace(part, difference=difference) for part in parts(ours.outcome, subject.reveal.outcome)
    ]
    return {f.level: f.same for f in found}, reason(subject, ours, found, compared), found


def differing(pattern: str = "", level: float | None = -20.0) -> Difference:
    return Difference(70_000, 80_000, 150_000, 0.1, 0.05, level, pattern)


# Level by level


def test_everything_equal_is_agreement() -> None:
    levels, said, _ = explained(revealed(C, TRUTH))
    assert levels == {"runtime": True, "weights": True, "tokens": True, "waveform": True}
    assert said == "It agreed."


def test_another_runtime_is_not_of_the_class() -> None:
    trace = {**TRACE, "runtime": {**CLASS, "torch": "2.12.0"}, "weights": "e" * 64}
    levels, said, found = explained(revealed(C, ALTERED, trace))
    assert levels == {"runtime": False, "weights": False, "tokens": True, "waveform": False}
    assert "not of the class" in said
    assert found[0].detail == "torch is '2.12.0', the class has '2.13.0'"


def test_of_many_differing_fields_some_are_named() -> None:
    trace = {**TRACE, "runtime": {f"own-{n}": n for n in range(20)}}
    detail = explained(revealed(C, ALTERED, trace))[2][0].detail
    assert detail.count(";") == 3
    assert detail.endswith(", and 18 more")


def test_other_weights_are_another_model() -> None:
    levels, said, found = explained(revealed(C, ALTERED, {**TRACE, "weights": "e" * 64}))
    assert (levels["runtime"], levels["weights"]) == (True, False)
    assert "other weights" in said
    assert "e" * 16 in found[1].detail


def test_other_tokens_are_the_language_models() -> None:
    trace = {**TRACE, "tokens": [[*BLOCKS[:2], "f" * 16, "f" * 16]]}
    levels, said, found = explained(revealed(C, ALTERED, trace))
    assert (levels["weights"], levels["tokens"]) == (True, False)
    assert found[2].detail == "they differ first in steps 129 to 192"
    assert said.startswith("Runtime and weights are the same, but the tokens are not")


def test_an_altered_waveform_is_named_as_what_it_is() -> None:
    levels, said, found = explained(revealed(C, ALTERED), differing("the others', times 0.9"))
    assert levels == {"runtime": True, "weights": True, "tokens": True, "waveform": False}
    assert said == (
        "Tokens are the same, and its waveform is the others', times 0.9: it was altered after it "
        "was computed."
    )
    assert found[3].detail == "chunk 2 of 3 is the first that differs, from 2.05 s on"


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (differing(level=-120.0), "no more than rounding"),
        (differing(level=-20.0), "codec, post-processing, or an altered result"),
        (differing(level=None), "codec, post-processing, or an altered result"),
        (None, "codec, post-processing, or an altered result"),
    ],
)
def test_an_unknown_waveform_is_judged_by_its_size(
    difference: Difference | None, expected: str
) -> None:
    said = explained(revealed(C, ALTERED), difference)[1]
    assert said.startswith("Tokens are the same")
    assert expected in said


@pytest.mark.parametrize("trace", [{}, {"tokens": "none", "runtime": 1, "weights": []}])
def test_what_a_trace_does_not_tell_is_unknown(trace: dict[str, Any]) -> None:
    levels, said, _ = explained(revealed(C, ALTERED, trace))
    assert levels == {"runtime": None, "weights": None, "tokens": None, "waveform": False}
    assert said.startswith("Tokens is not told, but the waveform is not")


def test_tokens_that_only_one_tells_are_unknown() -> None:
    agreement = seen(revealed(A, TRUTH, {}), revealed(B, TRUTH, {}), revealed(C, ALTERED))
    ours = reference_of(agreement.vote_sets, certified(agreement))
    assert ours is not None
    found = findings(TASK, NET, ours, revealed(C, ALTERED))
    assert found[2] == Finding("tokens", None, "no other trace tells the tokens")


def test_a_failure_beside_results_is_a_level_of_its_own() -> None:
    levels, said, found = explained(revealed(C, FAILED, {**TRACE, "tokens": []}))
    assert levels == {"runtime": True, "weights": True, "tokens": None, "outcome": False}
    assert found[-1].detail == "fails with no-notes; the others: has a result"
    assert "whether the task fails" in said


@pytest.mark.parametrize(
    ("theirs", "level", "detail"),
    [
        ([output("x", channels=2)], "waveform", "channels 2, the others have 1"),
        ([output("x", sampling_rate=16_000)], "waveform", "sampling_rate 16000, the others have"),
        ([output("truth"), output("y")], "waveform", "2 outputs, the others have 1"),
        ([score("x")], "waveform", "or of other kinds"),
        ([output("x", CHUNKS)], "waveform", "the same as far as both go"),
    ],
)
def test_manifests_that_cannot_be_compared_are_said_so(
    theirs: list[dict[str, Any]], level: str, detail: str
) -> None:
    found = explained(revealed(C, result(*theirs)))[2][-1]
    assert (found.level, found.same) == (level, False)
    assert detail in found.detail


def test_a_score_that_differs_comes_before_its_sound() -> None:
    ours = Reference(result(score("a"), output("a")), "a" * 64, (A, B), None, certified=True)
    theirs = revealed(C, result(score("b", 11), output("b")))
    found = findings(TASK, NET, ours, theirs)
    assert [(f.level, f.same) for f in found[3:]] == [("score", False), ("waveform", False)]
    assert found[3].detail == "output 0: notes 11, the others have 10"
    assert [part.output for part in parts(ours.outcome, theirs.outcome)] == [1]


# Who is compared with what


def test_nothing_but_the_certificate_is_the_reference_where_there_is_one() -> None:
    agreement = seen(*HONEST, revealed(C, ALTERED))
    ours = reference_of(agreement.vote_sets, certified(agreement))
    assert ours is not None
    assert (ours.outcome, ours.certified) == (TRUTH, True)
    assert ours.supporters == tuple(sorted((A, B)))


def test_without_a_certificate_most_members_are_the_reference() -> None:
    votes = [revealed(m, TRUTH, attempt=1) for m in SECOND[:2]]
    lies = [revealed(m, result(output(m)), attempt=1) for m in SECOND[2:]]
    ours = reference_of(seen(*votes, *lies).vote_sets, None)
    assert ours is not None
    assert (ours.digest, ours.certified) == (outcome_digest(TRUTH), False)


@pytest.mark.parametrize("outcomes", [[], [TRUTH], [TRUTH, ALTERED], [TRUTH, ALTERED, FAILED]])
def test_where_no_two_agree_there_is_no_reference(outcomes: list[dict[str, Any]]) -> None:
    agreement = seen(*(revealed(m, o) for m, o in zip(FIRST, outcomes, strict=False)))
    assert reference_of(agreement.vote_sets, None) is None
    if outcomes:
        subject = subject_of(agreement.vote_sets, A, None)
        assert subject is not None
        assert "nothing to compare" in reason(subject, None, (), ())


def test_a_tie_is_no_reference() -> None:
    votes = [revealed(m, TRUTH, attempt=1) for m in SECOND[:2]]
    others = [revealed(m, ALTERED, attempt=1) for m in SECOND[2:4]]
    assert reference_of(seen(*votes, *others).vote_sets, None) is None


@pytest.mark.parametrize(
    ("votes", "conduct", "expected"),
    [
        ([], VoteOutcome.SILENT, "neither committed nor abstained"),
        (
            [fixtures.commit(NET, TASK, C)],
            VoteOutcome.SILENT,
            "committed to an outcome and did not reveal",
        ),
        (
            [fixtures.abstain(NET, TASK, C, "timeout")],
            VoteOutcome.ABSTAINED,
            "It abstained: timeout",
        ),
        (
            [fixtures.commit(NET, TASK, C), fixtures.commit(NET, TASK, C, FAILED)],
            VoteOutcome.EQUIVOCATED,
            "before it revealed anything",
        ),
    ],
)
def test_who_revealed_nothing_is_explained_too(
    votes: list[Vote], conduct: VoteOutcome, expected: str
) -> None:
    agreement = seen(*HONEST, *votes)
    ours = reference_of(agreement.vote_sets, certified(agreement))
    assert ours is not None
    subject = subject_of(agreement.vote_sets, C, ours.digest)
    assert subject is not None
    assert (subject.conduct, subject.reveal) == (conduct, None)
    assert expected in reason(subject, ours, (), ())


def test_the_right_outcome_too_late_is_told_from_dissent() -> None:
    unlisted = [
        fixtures.reveal(NET, TASK, m, {n: fixtures.bound(TASK, n, TRUTH) for n in (A, B)}, TRUTH)
        for m in FIRST
    ]
    agreement = seen(*unlisted)
    ours = reference_of(agreement.vote_sets, certified(agreement))
    assert ours is not None
    subject = subject_of(agreement.vote_sets, C, ours.digest)
    assert subject is not None
    assert "closed their lists" in reason(subject, ours, (), ())


def test_an_equivocator_is_compared_and_called_one() -> None:
    agreement = seen(*HONEST, revealed(C, ALTERED), revealed(C, FAILED))
    ours = reference_of(agreement.vote_sets, certified(agreement))
    assert ours is not None
    subject = subject_of(agreement.vote_sets, C, ours.digest)
    assert subject is not None
    assert subject.reveal is not None
    found = findings(TASK, NET, ours, subject.reveal)
    assert reason(subject, ours, found, ()).endswith("contradicted itself: see helium evidence.")


def test_the_last_reveal_is_what_a_member_stands_for() -> None:
    votes = [
        *(revealed(m, result(output(m))) for m in FIRST),
        *(revealed(m, TRUTH, attempt=1) for m in SECOND),
    ]
    agreement = seen(*votes)
    subject = subject_of(agreement.vote_sets, C, outcome_digest(TRUTH))
    assert subject is not None
    assert (subject.attempt, subject.conduct) == (1, VoteOutcome.AGREED)


def test_who_was_in_no_committee_that_began_has_no_part() -> None:
    later = next(m for m in SECOND if m not in FIRST)
    agreement = seen(*HONEST)
    assert subject_of(attempts_with_votes(agreement.vote_sets), later, None) is None
    assert subject_of(agreement.vote_sets, later, None) is not None
    assert len(attempts_with_votes(seen().vote_sets)) == 1
    assert (
        len(attempts_with_votes(seen(fixtures.abstain(NET, TASK, later, attempt=1)).vote_sets)) == 2
    )
