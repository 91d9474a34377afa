"""Notes to a MIDI file: the same notes give the same bytes.

Times are whole ticks: 384 to a quarter note at 120 quarter notes a minute, the resolution of
transformers' Pop2Piano tokenizer. The file has a tempo track and one piano track.
"""

import dataclasses
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DIVISION = 384  # ticks per quarter note
TEMPO = 500_000  # microseconds per quarter note
TICKS_PER_SECOND = DIVISION * 1_000_000 // TEMPO  # 768
# Ticks; the longest delta time that a file can hold.
MAX_TICK = 2**28 - 1

TimedNote = tuple[float, float, int, int]  # start and end in seconds, pitch, velocity

# Content of track 0: the tempo, 4/4 time, end of track.
TEMPO_TRACK = (
    b"\x00\xff\x51\x03" + TEMPO.to_bytes(3, "big") + b"\x00\xff\x58\x04\x04\x02\x18\x08"
    b"\x00\xff\x2f\x00"
)
PIANO_PROGRAM = b"\x00\xc0\x00"
END_OF_TRACK = b"\x00\xff\x2f\x00"


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One note: from `start` to `end` in ticks, `end` > `start`; MIDI pitch and velocity."""

    start: int
    pitch: int
    end: int
    velocity: int


def canonical(notes: Iterable[TimedNote]) -> tuple[Note, ...]:
    """Return the notes as a file can hold them, in order of start and pitch.

    Times are rounded to ticks (ties to even). A note before 0 starts at 0, and each lasts at least
    one tick. A key that is struck again ends its previous note; of two notes of one key that start
    at once, the longer stays. Raises `ValueError` for an invalid MIDI note.
    """
    result: list[Note] = []
    latest: dict[int, int] = {}  # pitch: index in `result` of its latest note
    for note in sorted(to_ticks(timed) for timed in notes):
        index = latest.get(note.pitch)
        if index is not None and result[index].end > note.start:
            previous = result[index]
            if previous.start == note.start:  # sorted by end, so this one is longer
                result[index] = note
                continue
            result[index] = dataclasses.replace(previous, end=note.start)
        latest[note.pitch] = len(result)
        result.append(note)
    return tuple(result)


def to_ticks(timed: TimedNote) -> Note:
    """Return one note in whole ticks. Raises `ValueError` for an invalid MIDI note."""
    start, end, pitch, velocity = timed
    try:
        first = max(0, round(float(start) * TICKS_PER_SECOND))
        last = max(first + 1, round(float(end) * TICKS_PER_SECOND))
    except OverflowError as error:
        raise ValueError("a note at infinity") from error
    if not (0 <= pitch <= 127 and 1 <= velocity <= 127 and last <= MAX_TICK):
        raise ValueError(f"not a MIDI note: pitch {pitch}, velocity {velocity}, end {last}")
    return Note(first, int(pitch), last, int(velocity))


def encode(notes: Iterable[Note]) -> bytes:
    """Return the file of canonical notes: format 1, a tempo track and a piano track."""
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, 2, DIVISION)
    return (
        header + track(TEMPO_TRACK) + track(PIANO_PROGRAM + b"".join(events(notes)) + END_OF_TRACK)
    )


def track(content: bytes) -> bytes:
    """Return the chunk of a track."""
    return struct.pack(">4sI", b"MTrk", len(content)) + content


def events(notes: Iterable[Note]) -> Iterator[bytes]:
    """Yield note-ons and note-offs in order of time; at one tick first the offs, then by pitch."""
    moments = sorted(
        moment
        for note in notes
        for moment in ((note.start, 1, note.pitch, note.velocity), (note.end, 0, note.pitch, 0))
    )
    # Offs before ons at one tick: a key that is struck again is released first.
    now = 0
    for tick, _, pitch, velocity in moments:
        yield variable_length(tick - now) + bytes((0x90, pitch, velocity))
        now = tick


def variable_length(number: int) -> bytes:
    """Return a variable-length quantity: seven bits per byte, the most significant first."""
    reversed_bytes = [number & 127]
    while number := number >> 7:
        reversed_bytes.append(number & 127 | 128)
    return bytes(reversed(reversed_bytes))
