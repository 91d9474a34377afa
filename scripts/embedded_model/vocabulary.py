"""The four codebooks: what each of their tokens means.

A token is an event or a wait. A wait's sound is nothing new, and it has many ids, so that the
tokens of one frame, with those just before, say where in the piece we are: how long until the next
sixteenth, in which key, which instrument sounds. The language model copies that rather than
counting it.

MusicGen delays book k by k frames, so a book sees those before it at its own frame, and a little
beyond: the beat comes first, then the chords, the bass and the lead.
"""

from dataclasses import dataclass
from typing import Final

SIZE: Final = 512  # tokens of each book; a power of two, which EnCodec wants
FRAME_RATE: Final = 50  # frames per second
BOOKS: Final = ("beat", "chords", "bass", "lead")
BEAT, CHORDS, BASS, LEAD = range(4)

SIXTEENTHS: Final = 16  # of a bar, which has four quarters
BARS: Final = 4  # of a phrase
TEMPI: Final = (5, 6, 7, 8, 10, 11, 12)  # frames of a sixteenth: 150 to 62.5 quarters a minute
HITS: Final = (
    "", "kick", "snare", "hat", "kick hat", "snare hat", "open", "kick open", "shaker",
    "kick shaker", "rim", "kick crash",
)  # fmt: skip

MODES: Final = ("major", "minor")
QUALITIES: Final = ("major", "minor", "major 7", "minor 7")
CHORD_SOUNDS: Final = ("pad", "organ", "piano", "guitar")
CHORD_DAMPING: Final = ("none", "piano", "guitar")
BASS_SOUNDS: Final = ("round", "picked", "synth")
BASS_STYLES: Final = ("whole", "halves", "pulse", "fifths", "walking", "octaves")
LEAD_SOUNDS: Final = ("piano", "bells", "harp", "synth", "flute", "strings")
PARTS: Final = ("silent", "melody", "arpeggio", "answer")

BASS_LOW, BASS_HIGH = 28, 51  # MIDI notes, both included
LEAD_LOW, LEAD_HIGH = 60, 89


@dataclass(frozen=True, slots=True)
class Tick:
    """The first frame of a sixteenth: where it stands in the phrase, and what is hit."""

    bar: int
    sixteenth: int
    hits: str


@dataclass(frozen=True, slots=True)
class Until:
    """A frame between sixteenths: frames of a sixteenth, and how many are left to the next."""

    frames: int
    left: int


@dataclass(frozen=True, slots=True)
class Chord:
    """A chord begins, and ends the one before."""

    root: int
    quality: str
    sound: str
    bright: bool


@dataclass(frozen=True, slots=True)
class ChordHold:
    """The chord sounds on, in a key (tonic 0 to 11, mode), decaying as its sound does."""

    tonic: int
    mode: str
    damping: str


@dataclass(frozen=True, slots=True)
class ChordRest:
    """No chord, in a key."""

    tonic: int
    mode: str


@dataclass(frozen=True, slots=True)
class Bass:
    """A bass note begins, and ends the one before."""

    pitch: int
    sound: str
    strong: bool


@dataclass(frozen=True, slots=True)
class BassHold:
    """The bass note sounds on."""

    sound: str
    style: str


@dataclass(frozen=True, slots=True)
class BassRest:
    """No bass."""

    style: str


@dataclass(frozen=True, slots=True)
class Lead:
    """A note of the lead begins."""

    pitch: int
    sound: str
    bright: bool


@dataclass(frozen=True, slots=True)
class LeadHold:
    """The lead's note sounds on."""

    sound: str
    part: str


@dataclass(frozen=True, slots=True)
class LeadRest:
    """The lead pauses."""

    sound: str
    part: str


Token = (
    Tick | Until | Chord | ChordHold | ChordRest | Bass | BassHold | BassRest | Lead | LeadHold
    | LeadRest
)  # fmt: skip


def beat() -> tuple[Token, ...]:
    waits = [Until(frames, left) for frames in TEMPI for left in range(1, frames)]
    downbeats = [Tick(bar, 0, hits) for bar in range(BARS) for hits in HITS]
    others = [Tick(0, place, hits) for place in range(1, SIXTEENTHS) for hits in HITS]
    return (*waits, *downbeats, *others)


def chords() -> tuple[Token, ...]:
    begun = [
        Chord(root, quality, sound, bright)
        for sound in CHORD_SOUNDS for bright in (False, True)
        for quality in QUALITIES for root in range(12)
    ]  # fmt: skip
    held = [
        ChordHold(tonic, mode, damping)
        for damping in CHORD_DAMPING for mode in MODES for tonic in range(12)
    ]  # fmt: skip
    return (*begun, *held, *(ChordRest(tonic, mode) for mode in MODES for tonic in range(12)))


def bass() -> tuple[Token, ...]:
    begun = [
        Bass(pitch, sound, strong)
        for sound in BASS_SOUNDS for strong in (False, True)
        for pitch in range(BASS_LOW, BASS_HIGH + 1)
    ]  # fmt: skip
    held = [BassHold(sound, style) for sound in BASS_SOUNDS for style in BASS_STYLES]
    return (*begun, *held, *(BassRest(style) for style in BASS_STYLES))


def lead() -> tuple[Token, ...]:
    begun = [
        Lead(pitch, sound, bright)
        for sound in LEAD_SOUNDS for bright in (False, True)
        for pitch in range(LEAD_LOW, LEAD_HIGH + 1)
    ]  # fmt: skip
    held = [LeadHold(sound, part) for sound in LEAD_SOUNDS for part in PARTS]
    return (*begun, *held, *(LeadRest(sound, part) for sound in LEAD_SOUNDS for part in PARTS))


TOKENS: Final = (beat(), chords(), bass(), lead())  # a token's id is its place in its book
IDS: Final = tuple({token: place for place, token in enumerate(book)} for book in TOKENS)
