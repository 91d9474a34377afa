"""From notes to a MIDI file: the same notes give the same bytes.

Times are whole ticks of 384 to a quarter note at 120 quarters a minute, the resolution at which
transformers' Pop2Piano tokenizer makes its notes. Nothing else is in the file but one piano track.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DIVISION = 384  # ticks of a quarter note
TEMPO = 500_000  # microseconds of a quarter note
TICKS = DIVISION * 1_000_000 // TEMPO  # in a second: 768
LATEST = 2**28 - 1  # ticks; the longest that one delta time of a file can be

Timed = tuple[float, float, int, int]  # start and end in seconds, pitch, velocity

# Track 0: the tempo, four quarters to a bar, the end.
TIMING = (
    b"\x00\xff\x51\x03" + TEMPO.to_bytes(3, "big") + b"\x00\xff\x58\x04\x04\x02\x18\x08"
    b"\x00\xff\x2f\x00"
)
PIANO = b"\x00\xc0\x00"
END = b"\x00\xff\x2f\x00"


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One note: from `start` to `end` in ticks, `end` > `start`; MIDI pitch and velocity."""

    start: int
    pitch: int
    end: int
    velocity: int


def canonical(notes: Iterable[Timed]) -> tuple[Note, ...]:
    """The notes as a file can hold them, in order of start and pitch.

    Times are rounded to ticks (ties to even), a note before 0 starts at 0, and each lasts at least
    one tick. A key that is struck again ends the note before; of two that are struck at once, the
    longer stays. Raises `ValueError` for what is no MIDI note.
    """
    kept: list[Note] = []
    last: dict[int, int] = {}  # pitch: place in `kept` of its latest note
    for note in sorted(ticked(timed) for timed in notes):
        place = last.get(note.pitch)
        before = None if place is None else kept[place]
        if before is not None and place is not None and before.end > note.start:
            if before.start == note.start:  # sorted by end: the later one is the longer
                kept[place] = note
                continue
            kept[place] = Note(before.start, before.pitch, note.start, before.velocity)
        last[note.pitch] = len(kept)
        kept.append(note)
    return tuple(kept)


def ticked(timed: Timed) -> Note:
    """One note in whole ticks; `ValueError` if it is none."""
    start, end, pitch, velocity = timed
    try:
        first = max(0, round(float(start) * TICKS))
        last = max(first + 1, round(float(end) * TICKS))
    except OverflowError as error:
        raise ValueError("a note at infinity") from error
    if not (0 <= pitch <= 127 and 1 <= velocity <= 127 and last <= LATEST):
        raise ValueError(f"not a MIDI note: pitch {pitch}, velocity {velocity}, end {last}")
    return Note(first, int(pitch), last, int(velocity))


def encode(notes: Iterable[Note]) -> bytes:
    """The file of canonical notes: format 1, a track of the tempo and one of the piano."""
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, 2, DIVISION)
    return header + track(TIMING) + track(PIANO + b"".join(events(notes)) + END)


def track(content: bytes) -> bytes:
    """A track's chunk."""
    return struct.pack(">4sI", b"MTrk", len(content)) + content


def events(notes: Iterable[Note]) -> Iterator[bytes]:
    """Keys down and up in order of time; at one tick up before down, then by pitch."""
    moments = sorted(
        moment
        for note in notes
        for moment in ((note.start, 1, note.pitch, note.velocity), (note.end, 0, note.pitch, 0))
    )
    now = 0
    for tick, _, pitch, velocity in moments:
        yield variable(tick - now) + bytes((0x90, pitch, velocity))
        now = tick


def variable(number: int) -> bytes:
    """A variable-length quantity: seven bits a byte, the most significant first."""
    low = [number & 127]
    while number := number >> 7:
        low.append(number & 127 | 128)
    return bytes(reversed(low))
