import hashlib
from typing import Any

import pytest

from protocol import manifest
from protocol.errors import Rejection
from protocol.manifest import SCORE, WAVEFORM, Blob, blobs_of, outputs_of, tokens_of
from protocol.wire.encoding import Document
from tests.protocol.rejections import reason_of, rejected
from tests.support import fixtures

CHUNK = 262_144
MUSIC: dict[str, Any] = {"model": fixtures.MODEL, "prompt": "a", "seed": 1}


def wave(size: int = 64, **changes: Any) -> dict[str, Any]:
    """A consistent mono waveform of `size` bytes, with changes."""
    chunks = [f"{n:064x}" for n in range(-(-size // CHUNK))]
    entry = {"media": WAVEFORM, "sampling_rate": 32_000, "frames": size // 4, "channels": 1}
    return {**entry, "sha256": "a" * 64, "size": size, "chunks": chunks, **changes}


def score(notes: int = 3, **changes: Any) -> dict[str, Any]:
    """A consistent MIDI file, with changes."""
    entry = {"media": SCORE, "notes": notes, "sha256": "b" * 64, "size": 56 + 8 * notes}
    return {**entry, "chunks": ["c" * 64], **changes}


def tokens(size: int = 12) -> dict[str, Any]:
    return {"sha256": "d" * 64, "size": size}


def result(*entries: dict[str, Any]) -> Document:
    return {"result": {"outputs": [*entries]}}


def test_blobs_of_result_keep_their_order() -> None:
    outcome = result(score(), wave())
    assert blobs_of(outcome) == (
        Blob("b" * 64, 80, ("c" * 64,)),
        Blob("a" * 64, 64, ("0" * 64,)),
    )
    assert list(outputs_of(outcome)) == [score(), wave()]


def test_tokens_follow_their_output() -> None:
    outcome = result(score(), wave(tokens=tokens()), wave())
    assert blobs_of(outcome) == (
        Blob("b" * 64, 80, ("c" * 64,)),
        Blob("a" * 64, 64, ("0" * 64,)),
        Blob("d" * 64, 12, ()),
        Blob("a" * 64, 64, ("0" * 64,)),
    )
    assert tokens_of(wave()) is None
    assert tokens_of(score()) is None


def test_error_outcome_has_no_outputs() -> None:
    outcome: Document = {"error": "non-finite-output"}
    assert outputs_of(outcome) == []
    assert blobs_of(outcome) == ()
    manifest.check_consistent(outcome)
    manifest.check_fits(outcome, "text-to-music", MUSIC, 0)


# A manifest by itself


@pytest.mark.parametrize(
    "entry",
    [
        wave(4),
        wave(64, frames=2, channels=8),
        wave(CHUNK),
        wave(CHUNK + 4),
        wave(2 * CHUNK),
        score(1),
        score(size=81),
        score(size=CHUNK + 1, chunks=["c" * 64] * 2),
    ],
)
def test_consistent_entry_is_accepted(entry: dict[str, Any]) -> None:
    manifest.check_consistent(result(wave(), entry))


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (wave(64, frames=15), "size: is 64, frames and channels: 60"),
        (wave(64, frames=17), "size: is 64, frames and channels: 68"),
        (wave(64, channels=2), "size: is 64, frames and channels: 128"),
        ({**wave(), "size": 63}, "size: is 63"),
        (wave(64, chunks=["0" * 64] * 2), "chunks: has 2 hashes for 64 bytes"),
        (wave(CHUNK, chunks=["0" * 64] * 2), "chunks: has 2 hashes"),
        (wave(CHUNK + 4, chunks=["0" * 64]), "chunks: has 1 hashes"),
        (score(3, size=79), "size: is 79, notes need 80"),
        (score(3, chunks=["c" * 64] * 2), "chunks: has 2 hashes for 80 bytes"),
    ],
)
def test_entry_that_contradicts_itself_is_rejected(entry: dict[str, Any], field: str) -> None:
    with rejected(Rejection.INVALID_FIELD, f"outcome.result.outputs[1].{field}"):
        manifest.check_consistent(result(wave(), entry))


def test_entries_that_an_executor_makes_are_consistent() -> None:
    content = bytes(CHUNK + 8)
    entry = manifest.waveform_entry(
        content, sampling_rate=8000, frames=len(content) // 8, channels=2
    )
    midi = manifest.score_entry(bytes(64), notes=1)
    manifest.check_consistent(result(entry, midi))
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert midi["sha256"] == hashlib.sha256(bytes(64)).hexdigest()


@pytest.mark.parametrize("size", [5, 6, 7, 16_777_215])
def test_tokens_of_a_size_that_is_no_multiple_of_4_are_rejected(size: int) -> None:
    with rejected(Rejection.INVALID_FIELD, "outcome.result.outputs[0].tokens.size"):
        manifest.check_consistent(result(wave(tokens=tokens(size))))
    manifest.check_consistent(result(wave(tokens=tokens(size - size % 4))))


def test_entry_of_a_waveform_may_have_tokens() -> None:
    blob = bytes(range(8))
    entry = manifest.waveform_entry(bytes(4), sampling_rate=8000, frames=1, channels=1, tokens=blob)
    assert entry["tokens"] == {"sha256": hashlib.sha256(blob).hexdigest(), "size": 8}
    assert tokens_of(entry) == Blob(hashlib.sha256(blob).hexdigest(), 8, ())
    assert "tokens" not in manifest.waveform_entry(
        bytes(4), sampling_rate=8000, frames=1, channels=1
    )


# A manifest and its task


@pytest.mark.parametrize(
    ("config", "outputs"),
    [
        (None, 1),
        ({}, 1),
        ({"num_return_sequences": None}, 1),
        ({"num_return_sequences": 1}, 1),
        ({"num_return_sequences": 3}, 3),
    ],
)
def test_music_has_one_waveform_for_each_sequence(
    config: dict[str, Any] | None, outputs: int
) -> None:
    args = {**MUSIC, "generation_config": config}
    for number in range(1, 5):
        reason = reason_of(
            lambda n=number: manifest.check_fits(  # type: ignore[misc]
                result(*[wave()] * n), "text-to-music", args, 10**9
            )
        )
        assert reason is (None if number == outputs else Rejection.INVALID_FIELD)


def test_music_has_no_score() -> None:
    with rejected(Rejection.INVALID_FIELD, "outcome.result.outputs"):
        manifest.check_fits(result(score()), "text-to-music", MUSIC, 10**9)


@pytest.mark.parametrize(
    ("entries", "valid"),
    [
        ([score(), wave(), score(), wave()], True),
        ([score(), wave()], False),
        ([wave(), score(), score(), wave()], False),
        ([score(), score(), wave(), wave()], False),
        ([score(), wave(), score(), wave(), score(), wave()], False),
    ],
)
def test_piano_has_a_score_before_the_waveform_of_each_input(
    entries: list[dict[str, Any]], valid: bool
) -> None:
    args = fixtures.piano_args(b"one", b"two")
    reason = reason_of(lambda: manifest.check_fits(result(*entries), "pop2piano", args, 10**9))
    assert reason is (None if valid else Rejection.INVALID_FIELD)


def test_sizes_sum_to_at_most_max_output_bytes() -> None:
    args = {**MUSIC, "generation_config": {"num_return_sequences": 2}}
    manifest.check_fits(result(wave(64), wave(36)), "text-to-music", args, 100)
    with rejected(Rejection.INVALID_FIELD, "outcome.result.outputs: have 100 bytes, at most 99"):
        manifest.check_fits(result(wave(64), wave(36)), "text-to-music", args, 99)


def test_sizes_of_tokens_count() -> None:
    outcome = result(wave(64, tokens=tokens(36)))
    manifest.check_fits(outcome, "text-to-music", MUSIC, 100)
    with rejected(Rejection.INVALID_FIELD, "outcome.result.outputs: have 100 bytes, at most 99"):
        manifest.check_fits(outcome, "text-to-music", MUSIC, 99)


# Work

WORK = {"work": "e" * 64}


@pytest.mark.parametrize(
    ("outcome", "proves_work"),
    [
        (result(wave()), False),
        (result(score(), wave()), False),
        ({**result(wave(tokens=tokens())), **WORK}, True),
        ({**result(score(), wave(tokens=tokens())), **WORK}, True),
        ({"error": "no-notes"}, True),
        ({"error": "no-notes"}, False),
    ],
)
def test_work_and_tokens_are_there_if_the_task_proves_work(
    outcome: Document, proves_work: bool
) -> None:
    manifest.check_work(outcome, proves_work=proves_work)
    if "error" not in outcome:
        with rejected(Rejection.INVALID_FIELD, "outcome.work"):
            manifest.check_work(outcome, proves_work=not proves_work)


def test_work_without_tokens_proves_nothing() -> None:
    outcome = {**result(wave(tokens=tokens()), wave()), **WORK}
    with rejected(Rejection.INVALID_FIELD, "outcome.result.outputs[1].tokens: is missing"):
        manifest.check_work(outcome, proves_work=True)


def test_tokens_alone_are_rejected() -> None:
    with rejected(Rejection.INVALID_FIELD, "outcome.result.outputs[0].tokens: is there"):
        manifest.check_work(result(wave(tokens=tokens())), proves_work=False)
