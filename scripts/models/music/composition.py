"""The composer: turns a brief into a score, with the few rules of harmony that it needs.

A score says what begins at each sixteenth note, for each of the four books (see `tokens`).
"""

import random
from dataclasses import dataclass, field
from typing import Final

from scripts.models.music.brief import (
    BARS_PER_PHRASE,
    BASS_HIGH,
    BASS_LOW,
    LEAD_HIGH,
    LEAD_LOW,
    SIXTEENTHS_PER_BAR,
    Brief,
)

NOTE_NAMES: Final = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FLAT_NAMES: Final = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}
SCALES: Final = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
TRIADS: Final = {
    "major": ("major", "minor", "minor", "major", "major", "minor", ""),
    "minor": ("minor", "", "major", "minor", "minor", "major", "major"),
}
CHORD_INTERVALS: Final = {
    "major": (0, 4, 7),
    "minor": (0, 3, 7),
    "major 7": (0, 4, 7, 11),
    "minor 7": (0, 3, 7, 10),
}
# Degrees from 0; the tonic begins, and comes back where it can.
PROGRESSIONS: Final = {
    "major": (
        (0, 3, 0, 4), (0, 3, 4, 0), (0, 4, 0, 3), (0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 4),
        (0, 0, 3, 4), (0, 2, 3, 4), (0, 4, 3, 0), (0, 3, 1, 4),
    ),
    "minor": (
        (0, 3, 0, 4), (0, 5, 6, 0), (0, 3, 4, 0), (0, 6, 5, 4), (0, 5, 3, 4), (0, 0, 3, 4),
        (0, 6, 0, 4), (0, 5, 2, 6), (0, 3, 5, 4), (0, 4, 0, 3),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """A tonic, 0 to 11 from C, and a mode. `leading` raises the seventh over the dominant."""

    tonic: int
    mode: str
    leading: bool = False

    def pitch_class(self, degree: int, *, over_fifth: bool = False) -> int:
        """Return the pitch class of a degree of any octave, counted from 0 at the tonic."""
        raised = self.leading and over_fifth and degree % 7 == 6
        return (self.tonic + SCALES[self.mode][degree % 7] + raised) % 12

    def triad(self, degree: int) -> str:
        """Return the quality of the chord on a degree."""
        if self.leading and degree == 4:
            return "major"
        return TRIADS[self.mode][degree]

    def step(self, degree: int, *, over_fifth: bool = False) -> int:
        """Return the semitones of a degree of any octave above the tonic."""
        raised = self.leading and over_fifth and degree % 7 == 6
        return SCALES[self.mode][degree % 7] + 12 * (degree // 7) + raised


# In place of a note: the sounding note ends.
RELEASE: Final = -1
# A letter a sixteenth: k kick, s snare, h hat, o open hat, r rim, x shaker; capitals with a kick.
DRUM_LETTERS: Final = {
    ".": "", "k": "kick", "s": "snare", "h": "hat", "H": "kick hat", "n": "snare hat", "o": "open",
    "O": "kick open", "x": "shaker", "X": "kick shaker", "r": "rim", "C": "kick crash",
}  # fmt: skip
DRUM_PATTERNS: Final = {
    ("backbeat", "sparse"): ("k.......s.......", "k.....k.s......."),
    ("backbeat", "even"): ("H.h.n.h.H.H.n.h.", "H.h.n.hkH.h.n.h.", "H.h.n.h.h.H.n.o."),
    ("backbeat", "dense"): ("HhhhnhhhHhHhnhhh", "HhhHnhhhhhHhnhho"),
    ("four", "sparse"): ("k...r...k...r...", "k.......r......."),
    ("four", "even"): ("k.o.k.o.k.o.k.o.", "k.h.n.h.k.h.n.h.", "k.o.n.o.k.o.n.o."),
    ("four", "dense"): ("HhohHhohHhohHhoh", "HhohnhohHhohnhoh"),
    ("half", "sparse"): ("k.......s.......", "k...........s..."),
    ("half", "even"): ("H.h.h.h.n.h.h.h.", "H.h.h.H.n.h.h.h."),
    ("half", "dense"): ("HhhhhhHhnhhhhhHh", "HhhhhhhhnhhhhhHh"),
    ("hiphop", "sparse"): ("k.....k.s.......", "k.......s..k...."),
    ("hiphop", "even"): ("H.h.n.hkh.H.n.h.", "H.hkn.h.H.h.n.h."),
    ("hiphop", "dense"): ("HhhHnhhhhhHhnhhh", "HhhHnhhHhhHhnhhh"),
    ("shuffle", "sparse"): ("X.......r.......", "k.......x......."),
    ("shuffle", "even"): ("X..xr..xX..xr..x", "H..hn..hH..hn..h"),
    ("shuffle", "dense"): ("X.xxr.xxX.xxr.xx", "H.hhn.hhH.hhn.hh"),
    ("light", "sparse"): ("x.......r.......", "X.......x......."),
    ("light", "even"): ("X.x.x.x.X.x.x.x.", "x.x.r.x.x.x.r.x."),
    ("light", "dense"): ("XxxxrxxxXxxxrxxx", "XxxxxxxxXxxxrxxx"),
}
DRUM_FILLS: Final = ("s.s.", "ssss", "s..s", "nsss")
# When the lead's notes begin, by how many a bar may have; the onset rate is what "dense" means.
LEAD_RHYTHMS: Final = {
    "rare": ("x...............", "x.......x.......", "x...........x...", "........x......."),
    "few": ("x.......x.......", "x.......x...x...", "x...x...x.......", "x...........x..."),
    "some": ("x...x...x...x...", "x...x...x.x.x...", "x..x..x.....x...", "x.x.x...x...x..."),
    "many": ("x.x.x.x.x.x.x.x.", "x.x.xx..x.x.x.x.", "x.xxx.x.x.xxx.x.", "x.xxx.xxx.x.x.x."),
    "all": ("xxxxxxxxxxxxxxxx", "x.xxx.xxx.xxx.xx", "xxx.xxx.xxx.xxx.", "x.xxxxxxx.xxxxxx"),
}
LEAD_ACTIVITY: Final = {
    ("slow", "sparse"): "few", ("medium", "sparse"): "rare", ("fast", "sparse"): "rare",
    ("slow", "even"): "some", ("medium", "even"): "some", ("fast", "even"): "some",
    ("slow", "dense"): "all", ("medium", "dense"): "many", ("fast", "dense"): "many",
}  # fmt: skip
BASS_RHYTHMS: Final = {
    "whole": "x...............", "halves": "x.......x.......", "pulse": "x.x.x.x.x.x.x.x.",
    "fifths": "x.......x.......", "walking": "x...x...x...x...", "octaves": "x.x.x.x.x.x.x.x.",
}  # fmt: skip
BASS_STYLES_BY_DENSITY: Final = {
    "sparse": ("whole",), "even": ("halves", "fifths", "walking"),
    "dense": ("pulse", "octaves", "walking"),
}  # fmt: skip
CHORD_RHYTHMS: Final = {
    ("held", "sparse"): ("x...............",),
    ("held", "even"): ("x...............", "x.......x......."),
    ("held", "dense"): ("x.......x.......",),
    ("struck", "sparse"): ("x...............",),
    ("struck", "even"): ("x.......x.......", "x...x...x...x...", "x.....x.....x..."),
    ("struck", "dense"): ("x...x...x...x...", "x..x..x.x..x..x.", "..x...x...x...x."),
}
ARPEGGIO_FIGURES: Final = (
    (0, 1, 2, 3),
    (0, 1, 2, 1),
    (0, 2, 1, 2),
    (3, 2, 1, 0),
    (0, 2, 1, 3),
    (0, 1, 2, 4),
)


@dataclass(frozen=True, slots=True)
class Note:
    """A note of the bass or the lead. `strong` accents a bass note."""

    pitch: int
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Harmony:
    """A chord: its degree, the pitch class of its root, and its quality."""

    degree: int
    root: int
    quality: str


@dataclass(slots=True)
class Score:
    """The events of a piece. Each list has one entry per sixteenth, None for no event."""

    brief: Brief
    key: Key
    style: str  # of the bass
    hits: list[str] = field(default_factory=list)
    chords: list[Harmony | None] = field(default_factory=list)
    bass: list[Note | int | None] = field(default_factory=list)
    lead: list[Note | int | None] = field(default_factory=list)


def compose(brief: Brief, bars: int, rng: random.Random) -> Score:
    """Compose a number of bars."""
    key = Key(brief.tonic, brief.mode, brief.mode == "minor" and rng.random() < 0.6)
    style = rng.choice(BASS_STYLES_BY_DENSITY[brief.density])
    score = Score(brief, key, style)
    progression = rng.choice(PROGRESSIONS[brief.mode])
    degrees = [progression[bar % 4] for bar in range(bars)]
    score.hits = _write_drums(brief, bars, rng)
    _write_chords(score, degrees, rng)
    _write_bass(score, degrees, rng)
    if brief.part == "arpeggio":
        _write_arpeggio(score, degrees, rng)
    else:
        _write_melody(score, degrees, rng)
    return score


def _write_drums(brief: Brief, bars: int, rng: random.Random) -> list[str]:
    if not brief.groove:
        return [""] * SIXTEENTHS_PER_BAR * bars
    pattern = rng.choice(DRUM_PATTERNS[brief.groove, brief.density])
    fill = rng.choice(DRUM_FILLS) if brief.density != "sparse" and rng.random() < 0.5 else ""
    rows = []
    for bar in range(bars):
        row = pattern
        if fill and bar % BARS_PER_PHRASE == BARS_PER_PHRASE - 1:
            row = row[: -len(fill)] + fill
        if fill and bar and bar % BARS_PER_PHRASE == 0:
            row = "C" + row[1:]
        rows += [DRUM_LETTERS[letter] for letter in row]
    return rows


def _degree_per_sixteenth(degrees: list[int]) -> list[int]:
    """Return the degree under each sixteenth: a chord per bar, so the harmony shows the tempo."""
    return [degree for degree in degrees for _ in range(SIXTEENTHS_PER_BAR)]


def _harmony(score: Score, degree: int) -> Harmony:
    quality = score.key.triad(degree)
    if score.brief.sevenths and not (score.key.leading and degree == 4):
        quality = "minor 7" if quality == "minor" else "major 7" if degree != 4 else quality
    return Harmony(degree, score.key.pitch_class(degree), quality)


def _write_chords(score: Score, degrees: list[int], rng: random.Random) -> None:
    """Write the chords: one per bar if they sustain, in a rhythm if they decay."""
    kind = "struck" if score.brief.chords in ("piano", "guitar") else "held"
    rhythm = rng.choice(CHORD_RHYTHMS[kind, score.brief.density])
    degree_at = _degree_per_sixteenth(degrees)
    for position, degree in enumerate(degree_at):
        new_bar = position % SIXTEENTHS_PER_BAR == 0
        plays = bool(score.brief.chords) and (
            rhythm[position % SIXTEENTHS_PER_BAR] == "x" or (new_bar and rhythm[0] == "x")
        )
        score.chords.append(_harmony(score, degree) if plays else None)


def _write_bass(score: Score, degrees: list[int], rng: random.Random) -> None:
    """Write the bass: the root at each new bar, and its style in between."""
    base = rng.choice((BASS_LOW, BASS_LOW + 4, BASS_LOW + 8))
    rhythm, degree_at = BASS_RHYTHMS[score.style], _degree_per_sixteenth(degrees)
    walk = rng.choice(((0, 2, 4, 2), (0, 4, 2, 4), (0, 0, 4, 4), (0, 1, 2, 4)))
    count = 0
    for position, degree in enumerate(degree_at):
        new_bar = position % SIXTEENTHS_PER_BAR == 0
        count = 0 if new_bar else count
        if not score.brief.bass or not (new_bar or rhythm[position % SIXTEENTHS_PER_BAR] == "x"):
            score.bass.append(None)
            continue
        root = _lowest_pitch(score.key.pitch_class(degree), base)
        pitch = {
            "fifths": root + 7 * (count % 2),
            "octaves": root + 12 * (count % 2),
            "walking": root + _interval_above(score.key, degree, walk[count % 4]),
        }.get(score.style, root)
        score.bass.append(Note(pitch if pitch <= BASS_HIGH else pitch - 12, strong=new_bar))
        count += 1


def _interval_above(key: Key, degree: int, steps: int) -> int:
    """Return the semitones from a degree's root up to `steps` degrees of the scale above."""
    fifth = degree == 4
    return key.step(degree + steps, over_fifth=fifth) - key.step(degree, over_fifth=fifth)


def _lowest_pitch(pitch_class: int, low: int) -> int:
    """Return the lowest MIDI note of a pitch class that is not below `low`."""
    return low + (pitch_class - low) % 12


def _lead_center(brief: Brief) -> int:
    """Return the middle of the lead's range. Bright pieces lie higher."""
    return 77 if brief.bright else 68


def _write_arpeggio(score: Score, degrees: list[int], rng: random.Random) -> None:
    """Write an arpeggio: the chord's tones in a figure of eighths or sixteenths."""
    interval = {"slow": 1, "medium": 2, "fast": 2}[score.brief.speed]
    if score.brief.density == "even":
        interval = {"slow": 2, "medium": 4, "fast": 4}[score.brief.speed]
    elif score.brief.speed == "medium" and rng.random() < 0.5:
        interval = 1
    figure, low_end = rng.choice(ARPEGGIO_FIGURES), _lead_center(score.brief) - 5
    for position, degree in enumerate(_degree_per_sixteenth(degrees)):
        if position % interval:
            score.lead.append(None)
            continue
        chord = _harmony(score, degree)
        root = _lowest_pitch(chord.root, low_end - 3)
        tones = [root + step for step in (*CHORD_INTERVALS[chord.quality][:3], 12, 16)]
        if chord.quality.startswith("minor"):
            tones[4] = root + 15
        score.lead.append(Note(_into_lead_range(tones[figure[position // interval % len(figure)]])))


def _into_lead_range(pitch: int) -> int:
    """Move a pitch by octaves into the lead's range."""
    while pitch < LEAD_LOW:
        pitch += 12
    while pitch > LEAD_HIGH:
        pitch -= 12
    return pitch


def _write_melody(score: Score, degrees: list[int], rng: random.Random) -> None:
    """Write a melody of three one-bar motifs in the order A B A C."""
    brief, degree_at = score.brief, _degree_per_sixteenth(degrees)
    rhythms = LEAD_RHYTHMS[LEAD_ACTIVITY[brief.speed, brief.density]]
    motifs = {name: (rng.choice(rhythms), _draw_contour(rng)) for name in "ABC"}
    breath = rng.random() < 0.5 and brief.density != "dense"
    for bar in range(len(degrees)):
        rhythm, steps = motifs["ABAC"[bar % BARS_PER_PHRASE]]
        note_index = 0
        for position in range(SIXTEENTHS_PER_BAR):
            degree = degree_at[bar * SIXTEENTHS_PER_BAR + position]
            if rhythm[position] != "x":
                releases = breath and position == 12 and bar % 2 and "x" not in rhythm[12:]
                score.lead.append(RELEASE if releases else None)
                continue
            step = steps[note_index % len(steps)]
            if position % 8 == 0:
                step = min((0, 2, 4, 7), key=lambda tone: abs(tone - step))
            note_index += 1
            score.lead.append(Note(_melody_pitch(score, degree, step)))


def _draw_contour(rng: random.Random) -> list[int]:
    """Draw scale steps above the chord's root: small moves, rarely a leap."""
    step, steps = rng.choice((0, 2, 4)), []
    for _ in range(SIXTEENTHS_PER_BAR):
        steps.append(step)
        step += rng.choice((-1, -1, 1, 1, -2, 2, 0, 3))
        step = min(7, max(-2, step))
    return steps


def _melody_pitch(score: Score, degree: int, step: int) -> int:
    """Return the pitch `step` degrees above the chord's root, near the middle of the range."""
    key, middle = score.key, _lead_center(score.brief)
    root = _lowest_pitch(key.pitch_class(degree), middle - 8)
    return _into_lead_range(root + _interval_above(key, degree, step))
