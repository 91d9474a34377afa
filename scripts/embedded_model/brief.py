"""What a piece shall be: drawn at large, or the way a style goes."""

import dataclasses
import random
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from scripts.embedded_model.vocabulary import BASS_SOUNDS, FRAME_RATE

SPEEDS: Final = MappingProxyType({"slow": (10, 11, 12), "medium": (7, 8), "fast": (5, 6)})
DENSITIES: Final = ("sparse", "even", "dense")
GROOVES: Final = ("backbeat", "four", "half", "hiphop", "shuffle", "light")


@dataclass(frozen=True, slots=True)
class Brief:
    """The attributes of a piece; "" is none.

    `frames` of a sixteenth note, `tonic` from 0 at C. `lead` and `chords` are sounds, `part` what
    the lead does, `groove` what the drums do.
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
        """The class of the tempo."""
        return next(speed for speed, frames in SPEEDS.items() if self.frames in frames)

    @property
    def quarters(self) -> float:
        """The tempo in quarters per minute."""
        return 60 * FRAME_RATE / (4 * self.frames)


@dataclass(frozen=True, slots=True)
class Style:
    """What a style leaves to choose from; an empty choice is any."""

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


SPARSE: Final = ("sparse",)
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
            ("slow",), density=SPARSE, groove=("",), lead=("flute", "strings", "bells"),
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


def draw(chance: random.Random) -> Brief:
    """Any brief: half of them in a style."""
    name = chance.choice((*STYLES, *[""] * len(STYLES)))
    brief = in_style(name, STYLES.get(name, Style()), chance)
    return heard(brief, chance)


def in_style(name: str, style: Style, chance: random.Random) -> Brief:
    def among(chosen: tuple[Any, ...], others: tuple[Any, ...]) -> Any:
        return chance.choice(chosen or others)

    speed = among(style.speed, tuple(SPEEDS))
    return Brief(
        style=name,
        tonic=chance.randrange(12),
        mode=among(style.mode, ("major", "minor")),
        frames=chance.choice(SPEEDS[speed]),
        bright=among(style.bright, (False, True)),
        density=among(style.density, DENSITIES),
        groove=among(style.groove, (*GROOVES, *[""] * len(GROOVES))),
        lead=among(style.lead, ("piano", "bells", "harp", "synth", "flute", "strings")),
        part=among(style.part, ("melody", "melody", "arpeggio")),
        chords=among(style.chords, ("pad", "organ", "piano", "guitar", "")),
        bass=among(style.bass, (*BASS_SOUNDS, "")),
        sevenths=style.sevenths or chance.random() < 0.15,
    )


def heard(brief: Brief, chance: random.Random) -> Brief:
    """The same with enough in it: an arpeggio where it is dense, something beside a lone lead."""
    changes: dict[str, object] = {}
    if brief.density == "dense" and brief.lead in ("flute", "strings") and brief.part == "arpeggio":
        changes["lead"] = "harp"
    if brief.density == "sparse" and brief.part == "arpeggio":
        changes["part"] = "melody"
    if not brief.chords and not brief.bass and brief.part == "melody":
        changes["bass"] = chance.choice(BASS_SOUNDS)
    return dataclasses.replace(brief, **changes)  # type: ignore[arg-type]
