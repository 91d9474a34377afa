"""From a brief to a score: what begins at each sixteenth of each book."""

import random
from dataclasses import dataclass, field
from typing import Final

from scripts.embedded_model.brief import Brief
from scripts.embedded_model.theory import INTERVALS, PROGRESSIONS, Key
from scripts.embedded_model.vocabulary import (
    BARS,
    BASS_HIGH,
    BASS_LOW,
    LEAD_HIGH,
    LEAD_LOW,
    SIXTEENTHS,
)

RELEASE: Final = -1  # in place of a note: what sounds is stopped

# A letter a sixteenth: k kick, s snare, h hat, o open hat, r rim, x shaker; capitals with a kick.
KITS: Final = {
    ".": "", "k": "kick", "s": "snare", "h": "hat", "H": "kick hat", "n": "snare hat", "o": "open",
    "O": "kick open", "x": "shaker", "X": "kick shaker", "r": "rim", "C": "kick crash",
}  # fmt: skip
PATTERNS: Final = {
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
FILLS: Final = ("s.s.", "ssss", "s..s", "nsss")

# When the lead's notes begin, by how many a bar may have; the onset rate is what "dense" means.
RHYTHMS: Final = {
    "rare": ("x...............", "x.......x.......", "x...........x...", "........x......."),
    "few": ("x.......x.......", "x.......x...x...", "x...x...x.......", "x...........x..."),
    "some": ("x...x...x...x...", "x...x...x.x.x...", "x..x..x.....x...", "x.x.x...x...x..."),
    "many": ("x.x.x.x.x.x.x.x.", "x.x.xx..x.x.x.x.", "x.xxx.x.x.xxx.x.", "x.xxx.xxx.x.x.x."),
    "all": ("xxxxxxxxxxxxxxxx", "x.xxx.xxx.xxx.xx", "xxx.xxx.xxx.xxx.", "x.xxxxxxx.xxxxxx"),
}
BUSY: Final = {
    ("slow", "sparse"): "few", ("medium", "sparse"): "rare", ("fast", "sparse"): "rare",
    ("slow", "even"): "some", ("medium", "even"): "some", ("fast", "even"): "some",
    ("slow", "dense"): "all", ("medium", "dense"): "many", ("fast", "dense"): "many",
}  # fmt: skip
BASS_RHYTHMS: Final = {
    "whole": "x...............", "halves": "x.......x.......", "pulse": "x.x.x.x.x.x.x.x.",
    "fifths": "x.......x.......", "walking": "x...x...x...x...", "octaves": "x.x.x.x.x.x.x.x.",
}  # fmt: skip
BASS_CHOICE: Final = {
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
FIGURES: Final = (
    (0, 1, 2, 3),
    (0, 1, 2, 1),
    (0, 2, 1, 2),
    (3, 2, 1, 0),
    (0, 2, 1, 3),
    (0, 1, 2, 4),
)


@dataclass(frozen=True, slots=True)
class Note:
    """A note of the bass or the lead; `strong` is for the bass's accent."""

    pitch: int
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Harmony:
    """A chord struck: its degree, the root's pitch class and the quality."""

    degree: int
    root: int
    quality: str


@dataclass(slots=True)
class Score:
    """What begins where: a row of a book has one entry per sixteenth, None for nothing new."""

    brief: Brief
    key: Key
    style: str  # of the bass
    hits: list[str] = field(default_factory=list)
    chords: list[Harmony | None] = field(default_factory=list)
    bass: list[Note | int | None] = field(default_factory=list)
    lead: list[Note | int | None] = field(default_factory=list)


def compose(brief: Brief, bars: int, chance: random.Random) -> Score:
    """Write `bars` bars."""
    key = Key(brief.tonic, brief.mode, brief.mode == "minor" and chance.random() < 0.6)
    style = chance.choice(BASS_CHOICE[brief.density])
    score = Score(brief, key, style)
    progression = chance.choice(PROGRESSIONS[brief.mode])
    degrees = [progression[bar % 4] for bar in range(bars)]
    score.hits = drums(brief, bars, chance)
    struck(score, degrees, chance)
    low(score, degrees, chance)
    if brief.part == "arpeggio":
        broken(score, degrees, chance)
    else:
        sung(score, degrees, chance)
    return score


def drums(brief: Brief, bars: int, chance: random.Random) -> list[str]:
    if not brief.groove:
        return [""] * SIXTEENTHS * bars
    pattern = chance.choice(PATTERNS[brief.groove, brief.density])
    fill = chance.choice(FILLS) if brief.density != "sparse" and chance.random() < 0.5 else ""
    rows = []
    for bar in range(bars):
        row = pattern
        if fill and bar % BARS == BARS - 1:
            row = row[: -len(fill)] + fill
        if fill and bar and bar % BARS == 0:
            row = "C" + row[1:]
        rows += [KITS[letter] for letter in row]
    return rows


def spans(degrees: list[int]) -> list[int]:
    """The degree under each sixteenth: a chord a bar, so that the harmony tells the tempo."""
    return [degree for degree in degrees for _ in range(SIXTEENTHS)]


def harmony(score: Score, degree: int) -> Harmony:
    quality = score.key.triad(degree)
    if score.brief.sevenths and not (score.key.leading and degree == 4):
        quality = "minor 7" if quality == "minor" else "major 7" if degree != 4 else quality
    return Harmony(degree, score.key.pitch_class(degree), quality)


def struck(score: Score, degrees: list[int], chance: random.Random) -> None:
    """Chords: where the harmony changes, and in a rhythm where they decay."""
    kind = "struck" if score.brief.chords in ("piano", "guitar") else "held"
    rhythm = chance.choice(CHORD_RHYTHMS[kind, score.brief.density])
    under = spans(degrees)
    for place, degree in enumerate(under):
        fresh = place % SIXTEENTHS == 0
        plays = bool(score.brief.chords) and (
            rhythm[place % SIXTEENTHS] == "x" or (fresh and rhythm[0] == "x")
        )
        score.chords.append(harmony(score, degree) if plays else None)


def low(score: Score, degrees: list[int], chance: random.Random) -> None:
    """The bass: roots where the harmony changes, and its style between."""
    base = chance.choice((BASS_LOW, BASS_LOW + 4, BASS_LOW + 8))
    rhythm, under = BASS_RHYTHMS[score.style], spans(degrees)
    walk = chance.choice(((0, 2, 4, 2), (0, 4, 2, 4), (0, 0, 4, 4), (0, 1, 2, 4)))
    count = 0
    for place, degree in enumerate(under):
        fresh = place % SIXTEENTHS == 0
        count = 0 if fresh else count
        if not score.brief.bass or not (fresh or rhythm[place % SIXTEENTHS] == "x"):
            score.bass.append(None)
            continue
        root = placed(score.key.pitch_class(degree), base)
        pitch = {
            "fifths": root + 7 * (count % 2),
            "octaves": root + 12 * (count % 2),
            "walking": root + third(score.key, degree, walk[count % 4]),
        }.get(score.style, root)
        score.bass.append(Note(pitch if pitch <= BASS_HIGH else pitch - 12, strong=fresh))
        count += 1


def third(key: Key, degree: int, steps: int) -> int:
    """Semitones from a degree's root up `steps` degrees of the scale."""
    fifth = degree == 4
    return key.step(degree + steps, over_fifth=fifth) - key.step(degree, over_fifth=fifth)


def placed(pitch_class: int, low: int) -> int:
    """The lowest pitch of a class that is not below `low`."""
    return low + (pitch_class - low) % 12


def center(brief: Brief) -> int:
    """Where the lead moves around: higher where it is bright."""
    return 77 if brief.bright else 68


def broken(score: Score, degrees: list[int], chance: random.Random) -> None:
    """An arpeggio: the chord's tones in a figure, in eighths or sixteenths."""
    every = {"slow": 1, "medium": 2, "fast": 2}[score.brief.speed]
    if score.brief.density == "even":
        every = {"slow": 2, "medium": 4, "fast": 4}[score.brief.speed]
    elif score.brief.speed == "medium" and chance.random() < 0.5:
        every = 1
    figure, low_end = chance.choice(FIGURES), center(score.brief) - 5
    for place, degree in enumerate(spans(degrees)):
        if place % every:
            score.lead.append(None)
            continue
        made = harmony(score, degree)
        root = placed(made.root, low_end - 3)
        tones = [root + step for step in (*INTERVALS[made.quality][:3], 12, 16)]
        if made.quality.startswith("minor"):
            tones[4] = root + 15
        score.lead.append(Note(bounded(tones[figure[place // every % len(figure)]])))


def bounded(pitch: int) -> int:
    """A pitch moved by octaves into the lead's range."""
    while pitch < LEAD_LOW:
        pitch += 12
    while pitch > LEAD_HIGH:
        pitch -= 12
    return pitch


def sung(score: Score, degrees: list[int], chance: random.Random) -> None:
    """A melody: two motifs, repeated over the harmony; A B A C, a bar each."""
    brief, under = score.brief, spans(degrees)
    rhythms = RHYTHMS[BUSY[brief.speed, brief.density]]
    motifs = {name: (chance.choice(rhythms), contour(chance)) for name in "ABC"}
    breath = chance.random() < 0.5 and brief.density != "dense"
    for bar in range(len(degrees)):
        rhythm, steps = motifs["ABAC"[bar % BARS]]
        at = 0
        for place in range(SIXTEENTHS):
            degree = under[bar * SIXTEENTHS + place]
            if rhythm[place] != "x":
                last = breath and place == 12 and bar % 2 and "x" not in rhythm[12:]
                score.lead.append(RELEASE if last else None)
                continue
            step = steps[at % len(steps)]
            if place % 8 == 0:
                step = min((0, 2, 4, 7), key=lambda tone: abs(tone - step))
            at += 1
            score.lead.append(Note(melodic(score, degree, step)))


def contour(chance: random.Random) -> list[int]:
    """Steps of the scale above the chord's root: small moves, now and then a leap."""
    here, steps = chance.choice((0, 2, 4)), []
    for _ in range(SIXTEENTHS):
        steps.append(here)
        here += chance.choice((-1, -1, 1, 1, -2, 2, 0, 3))
        here = min(7, max(-2, here))
    return steps


def melodic(score: Score, degree: int, step: int) -> int:
    """The pitch `step` degrees above the chord's root, near the middle of the range."""
    key, middle = score.key, center(score.brief)
    root = placed(key.pitch_class(degree), middle - 8)
    return bounded(root + third(key, degree, step))
