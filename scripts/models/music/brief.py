"""The attributes of a piece, drawn at random or within a musical style."""

import dataclasses
import random
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

# Frames per second.
FRAME_RATE: Final = 50
# All pieces are in 4/4 time.
SIXTEENTHS_PER_BAR: Final = 16
BARS_PER_PHRASE: Final = 4  # of a phrase
# The tempi, as frames of a sixteenth note: 150 to 62.5 quarters per minute.
TEMPI: Final = (5, 6, 7, 8, 10, 11, 12)
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
# MIDI notes, both included.
BASS_LOW, BASS_HIGH = 28, 51
LEAD_LOW, LEAD_HIGH = 60, 89
SPEEDS: Final = MappingProxyType({"slow": (10, 11, 12), "medium": (7, 8), "fast": (5, 6)})
DENSITIES: Final = ("sparse", "even", "dense")
GROOVES: Final = ("backbeat", "four", "half", "hiphop", "shuffle", "light")


@dataclass(frozen=True, slots=True)
class Brief:
    """The attributes of a piece. An empty string means none.

    `tonic`: 0 to 11 from C. `frames`: frames of a sixteenth note. `groove`: the drum pattern.
    `lead`, `chords` and `bass` are sounds; `part` is what the lead plays. `sevenths`: chords have a
    seventh.
    """

    style: str
    tonic: int
    mode: str
    frames: int
    bright: bool
    density: str
    groove: str
    lead: str
    part: str
    chords: str
    bass: str
    sevenths: bool = False

    @property
    def speed(self) -> str:
        """The class of the tempo: slow, medium or fast."""
        return next(speed for speed, frames in SPEEDS.items() if self.frames in frames)

    @property
    def quarters(self) -> float:
        """The tempo in quarter notes per minute."""
        return 60 * FRAME_RATE / (4 * self.frames)


@dataclass(frozen=True, slots=True)
class Style:
    """The values that a style allows for each attribute. An empty tuple allows all."""

    speed: tuple[str, ...] = ()
    mode: tuple[str, ...] = ()
    bright: tuple[bool, ...] = ()
    density: tuple[str, ...] = ()
    groove: tuple[str, ...] = ()
    lead: tuple[str, ...] = ()
    part: tuple[str, ...] = ()
    chords: tuple[str, ...] = ()
    bass: tuple[str, ...] = ()
    sevenths: bool = False


_SPARSE: Final = ("sparse",)
STYLES: Final = MappingProxyType(
    {
        "pop": Style(
            ("medium", "fast"), ("major",), groove=("backbeat", "four"),
            lead=("synth", "piano"), chords=("piano", "guitar", "pad"), part=("melody",),
        ),
        "80s pop": Style(
            ("medium", "fast"), bright=(True,), groove=("backbeat", "four"), lead=("synth",),
            chords=("pad", "organ"), bass=("synth",),
        ),
        "rock": Style(
            ("medium", "fast"), density=("even", "dense"), groove=("backbeat",),
            lead=("synth", "piano"), chords=("guitar", "organ"), bass=("picked",),
        ),
        "techno": Style(
            ("fast",), ("minor",), density=("dense",), groove=("four",), lead=("synth",),
            part=("arpeggio",), chords=("pad", "organ", ""), bass=("synth",),
        ),
        "house": Style(
            ("fast",), density=("even", "dense"), groove=("four",), lead=("piano", "synth"),
            chords=("piano", "organ", "pad"), bass=("synth",), sevenths=True,
        ),
        "hip hop": Style(
            ("slow", "medium"), ("minor",), groove=("hiphop",), lead=("piano", "bells"),
            chords=("piano", "pad"), bass=("round",), sevenths=True,
        ),
        "lo-fi": Style(
            ("slow", "medium"), bright=(False,), density=("sparse", "even"), groove=("hiphop",),
            lead=("piano", "harp"), chords=("piano", "guitar"), bass=("round",), sevenths=True,
        ),
        "ambient": Style(
            ("slow",), density=_SPARSE, groove=("",), lead=("flute", "strings", "bells"),
            part=("melody",), chords=("pad",), bass=("round", ""),
        ),
        "lullaby": Style(
            ("slow",), ("major",), density=("sparse", "even"), groove=("",),
            lead=("bells", "harp"), chords=("pad", "guitar", ""), bass=("",),
        ),
        "folk": Style(
            ("medium",), density=("even", "dense"), groove=("", "light"), lead=("flute", "harp"),
            chords=("guitar",), bass=("picked", ""),
        ),
        "cinematic": Style(
            ("slow", "medium"), ("minor",), groove=("", "half"), lead=("strings",),
            chords=("pad", "organ"), bass=("round", "synth"),
        ),
        "classical": Style(
            groove=("",), lead=("piano", "strings", "flute", "harp"), chords=("piano", "pad"),
            bass=("round", ""),
        ),
        "jazz": Style(
            ("medium", "fast"), bright=(False,), groove=("shuffle", "light"),
            lead=("piano", "flute"), chords=("piano", "guitar"), bass=("picked",), sevenths=True,
        ),
        "chiptune": Style(
            ("fast",), bright=(True,), density=("dense",), lead=("synth",), part=("arpeggio",),
            groove=("four", "backbeat", ""), chords=("", "organ"), bass=("synth",),
        ),
        "gospel": Style(
            ("slow", "medium"), ("major",), groove=("backbeat", "light", ""), lead=("piano",),
            chords=("organ",), bass=("round", "picked"),
        ),
    }
)  # fmt: skip


def draw_brief(rng: random.Random) -> Brief:
    """Draw a brief. Half of the briefs have a style."""
    name = rng.choice((*STYLES, *[""] * len(STYLES)))
    brief = _draw_in_style(name, STYLES.get(name, Style()), rng)
    return _make_audible(brief, rng)


def _draw_in_style(name: str, style: Style, rng: random.Random) -> Brief:
    def choose(options: tuple[Any, ...], defaults: tuple[Any, ...]) -> Any:
        return rng.choice(options or defaults)

    speed = choose(style.speed, tuple(SPEEDS))
    return Brief(
        style=name,
        tonic=rng.randrange(12),
        mode=choose(style.mode, ("major", "minor")),
        frames=rng.choice(SPEEDS[speed]),
        bright=choose(style.bright, (False, True)),
        density=choose(style.density, DENSITIES),
        groove=choose(style.groove, (*GROOVES, *[""] * len(GROOVES))),
        lead=choose(style.lead, ("piano", "bells", "harp", "synth", "flute", "strings")),
        part=choose(style.part, ("melody", "melody", "arpeggio")),
        chords=choose(style.chords, ("pad", "organ", "piano", "guitar", "")),
        bass=choose(style.bass, (*BASS_SOUNDS, "")),
        sevenths=style.sevenths or rng.random() < 0.15,
    )


def _make_audible(brief: Brief, rng: random.Random) -> Brief:
    """Correct combinations in which an attribute could not be heard."""
    changes: dict[str, object] = {}
    if brief.density == "dense" and brief.lead in ("flute", "strings") and brief.part == "arpeggio":
        changes["lead"] = "harp"
    if brief.density == "sparse" and brief.part == "arpeggio":
        changes["part"] = "melody"
    if not brief.chords and not brief.bass and brief.part == "melody":
        changes["bass"] = rng.choice(BASS_SOUNDS)
    return dataclasses.replace(brief, **changes)  # type: ignore[arg-type]
