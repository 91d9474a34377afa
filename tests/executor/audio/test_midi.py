import io
import itertools
import random

import pretty_midi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.audio import midi
from executor.audio.midi import Note

TIMES = st.floats(-1, 400, allow_nan=False) | st.integers(0, 8).map(lambda n: n / 4)
TIMED = st.tuples(TIMES, TIMES, st.integers(0, 127), st.integers(1, 127))
CROWDED = st.tuples(TIMES, TIMES, st.integers(60, 62), st.integers(1, 127))


def read(content: bytes) -> list[Note]:
    """What pretty_midi reads from a file, in ticks."""
    score = pretty_midi.PrettyMIDI(io.BytesIO(content))
    assert score.resolution == 384
    assert [float(tempo) for tempo in score.get_tempo_changes()[1]] == [120.0]
    notes = [note for instrument in score.instruments for note in instrument.notes]
    return sorted(
        Note(score.time_to_tick(n.start), n.pitch, score.time_to_tick(n.end), n.velocity)
        for n in notes
    )


def test_a_file_byte_by_byte() -> None:
    notes = midi.canonical([(0.0, 0.5, 60, 77), (0.5, 0.75, 64, 100)])
    assert midi.encode(notes).hex(" ") == (
        "4d 54 68 64 00 00 00 06 00 01 00 02 01 80 "
        "4d 54 72 6b 00 00 00 13 00 ff 51 03 07 a1 20 00 ff 58 04 04 02 18 08 00 ff 2f 00 "
        "4d 54 72 6b 00 00 00 19 00 c0 00 "
        "00 90 3c 4d 83 00 90 3c 00 00 90 40 64 81 40 90 40 00 00 ff 2f 00"
    )


@given(st.lists(TIMED | CROWDED, min_size=1, max_size=40))
def test_what_is_written_is_what_is_read(timed: list[midi.TimedNote]) -> None:
    notes = midi.canonical(timed)
    assert read(midi.encode(notes)) == sorted(notes)


@given(st.lists(CROWDED, max_size=40), st.randoms(use_true_random=False))
def test_the_same_notes_are_the_same_file(
    timed: list[midi.TimedNote], draws: random.Random
) -> None:
    shuffled = list(timed)
    draws.shuffle(shuffled)
    once = midi.canonical(timed)
    assert midi.encode(midi.canonical(shuffled)) == midi.encode(once)
    seconds = [
        (n.start / midi.TICKS_PER_SECOND, n.end / midi.TICKS_PER_SECOND, n.pitch, n.velocity)
        for n in once
    ]
    assert midi.canonical(seconds) == once


@given(st.lists(CROWDED, max_size=40))
def test_no_key_is_down_twice(timed: list[midi.TimedNote]) -> None:
    notes = midi.canonical(timed)
    assert list(notes) == sorted(notes)
    for pitch in {note.pitch for note in notes}:
        played = [note for note in notes if note.pitch == pitch]
        assert all(note.end > note.start >= 0 for note in played)
        assert all(earlier.end <= later.start for earlier, later in itertools.pairwise(played))


def test_a_key_struck_again_ends_the_note_before() -> None:
    assert midi.canonical([(0, 2, 60, 77), (1, 3, 60, 77), (0, 2, 61, 77)]) == (
        Note(0, 60, 768, 77),
        Note(0, 61, 1536, 77),
        Note(768, 60, 2304, 77),
    )


def test_of_two_notes_at_once_the_longer_stays() -> None:
    assert midi.canonical([(0, 2, 60, 1), (0, 1, 60, 2)]) == (Note(0, 60, 1536, 1),)


def test_times_are_rounded_to_ticks_and_begin_at_zero() -> None:
    tick = 1 / 768
    (note,) = midi.canonical([(-1.0, 0.6 * tick, 60, 77)])
    assert (note.start, note.end) == (0, 1)
    (note,) = midi.canonical([(2.5 * tick, 2.5 * tick, 60, 77)])
    assert (note.start, note.end) == (2, 3)


@pytest.mark.parametrize(
    "timed",
    [
        (0.0, 1.0, 128, 77),
        (0.0, 1.0, -1, 77),
        (0.0, 1.0, 60, 0),
        (0.0, 1.0, 60, 128),
        (0.0, float("inf"), 60, 77),
        (float("nan"), 1.0, 60, 77),
        (0.0, 2.0**28 / 768, 60, 77),
    ],
)
def test_what_is_no_midi_note_is_refused(timed: midi.TimedNote) -> None:
    with pytest.raises(ValueError, match=r"cannot convert|infinity|not a MIDI note"):
        midi.canonical([timed])


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, "00"), (127, "7f"), (128, "8100"), (8192, "c000"), (midi.MAX_TICK, "ffffff7f")],
)
def test_variable_length_quantities(number: int, written: str) -> None:
    """From the standard's own examples."""
    assert midi.variable_length(number).hex() == written
