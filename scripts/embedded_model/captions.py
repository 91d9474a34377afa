"""A brief in words: parts of it, in an order and a wording drawn by chance.

Some sentence forms (`HELD_BACK_FORMS`) and every tenth combination of attributes (`held_back`)
never occur in training: they are for measuring.
"""

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from scripts.embedded_model import wording
from scripts.embedded_model.brief import Brief
from scripts.embedded_model.theory import FLATS, NAMES
from scripts.embedded_model.wording import words

SAID: Final = {
    "speed": 0.6, "mode": 0.5, "bright": 0.5, "density": 0.5, "kit": 0.65, "lead": 0.65,
    "chords": 0.4, "bass": 0.3, "style": 0.75, "key": 0.3, "tempo": 0.15,
}  # fmt: skip
# Of {a} adjectives, {n} noun, {w} "with" phrases, {k} key and tempo.
FORMS: Final = (
    "{a} {n}{w}{k}",
    "{article} {a} {n}{w}{k}",
    "{a}, {n}{w}{k}",
    "{n}, {a}{w}{k}",
    "{article} {n}{w}{k}, {a}",
    "{list}",
    "{list}",
    "play {article} {a} {n}{w}{k}",
    "i want {article} {a} {n}{w}{k}",
    "make {a} {n}{w}{k}, please",
    "{a} {n}{k}{w}.",
    "{n}{k}: {a}{w}",
    "{article} {n} that is {a}{w}{k}",
)
HELD_BACK_FORMS: Final = (
    "could you write {article} {a} {n}{w}{k}?",
    "{w2}: {article} {a} {n}{k}",
    "{a} and nice, {article} {n}{k}{w}",
    "let us hear {a} {n}{k}{w}!",
)
WITH: Final = (" with ", " with ", ", ", " featuring ", " and ", " using ", ": ")
LACKING: Final = ("no ", "without", "free of", "drumless", "beatless")


@dataclass(slots=True)
class Said:
    """The wordings chosen for a caption, and which attributes they say."""

    attributes: set[str] = field(default_factory=set)
    adjectives: list[str] = field(default_factory=list)
    things: list[str] = field(default_factory=list)
    noun: str = ""
    place: list[str] = field(default_factory=list)


def held_back(brief: Brief) -> bool:
    """Whether a brief's combination of attributes is kept out of training."""
    drummed = "drums" if brief.groove else "none"
    combination = (brief.speed, brief.mode, brief.bright, brief.density, drummed, brief.lead)
    return zlib.crc32("/".join(map(str, combination)).encode()) % 10 == 0


def caption(
    brief: Brief,
    chance: random.Random,
    forms: tuple[str, ...] = FORMS,
    said: Mapping[str, float] = SAID,
) -> tuple[str, set[str]]:
    """A caption, and the attributes (keys of `SAID`) that it says."""
    chosen = choose(brief, {name for name in SAID if chance.random() < said[name]}, chance)
    chance.shuffle(chosen.adjectives)
    chance.shuffle(chosen.things)
    text = phrase(chosen, chance.choice(forms), chance)
    if chance.random() < wording.RARE:
        text += chance.choice((", ", " for ", " like ", " about ")) + chance.choice(
            words(wording.SCENE)
        )
    return " ".join(text.replace(" ,", ",").strip(" ,:").split()), chosen.attributes


def choose(brief: Brief, wanted: set[str], chance: random.Random) -> Said:
    """Wordings for those of the wanted attributes that a word can say."""
    said = Said()

    def add(name: str, text: str | None, where: list[str], ending: str = "") -> None:
        if name in wanted and text:
            where.append(chance.choice(words(text)) + ending)
            said.attributes.add(name)

    add("speed", wording.SPEED[brief.speed], said.adjectives)
    add("mode", wording.MODE[brief.mode], said.adjectives)
    add("bright", wording.BRIGHTNESS[brief.bright], said.adjectives)
    if chance.random() < 0.6:
        add("density", wording.DENSITY.get(brief.density), said.adjectives)
    else:
        add("density", wording.DENSITY_AFTER.get(brief.density), said.things)
    add("kit", kit(brief, chance), said.things)
    part = " " + chance.choice(words(wording.PART[brief.part])) if chance.random() < 0.5 else ""
    add("lead", wording.LEAD[brief.lead], said.things, part)
    add("chords", wording.CHORDS.get(brief.chords), said.things)
    add("bass", wording.BASS.get(brief.bass), said.things)
    styled = [""]
    add("style", wording.STYLE.get(brief.style), styled)
    said.noun = " ".join((styled[-1], chance.choice(words(wording.NOUN)))).strip()
    if "key" in wanted:
        said.place.append(f"in {tonic(brief.tonic, chance)} {brief.mode}")
        said.attributes |= {"key", "mode"}
    if "tempo" in wanted:
        quarters = round(brief.quarters * chance.uniform(0.97, 1.03))
        said.place.append(f"{chance.choice(('at ', ''))}{quarters} bpm")
        said.attributes |= {"tempo", "speed"}
    return said


def kit(brief: Brief, chance: random.Random) -> str:
    if not brief.groove:
        return wording.NO_KIT
    return wording.GROOVE[brief.groove] if chance.random() < 0.25 else wording.KIT


def tonic(number: int, chance: random.Random) -> str:
    """The name of a tonic: C#, C sharp, Db or D flat."""
    name = NAMES[number]
    if name in FLATS and chance.random() < 0.5:
        name = FLATS[name]
    if len(name) > 1 and chance.random() < 0.5:
        name = name[0] + {"#": " sharp", "b": " flat"}[name[1]]
    return name.lower()


def phrase(said: Said, form: str, chance: random.Random) -> str:
    """Put the chosen wordings into a sentence form."""
    joined = chance.choice((" ", ", ", " and ")).join(said.adjectives)
    things = chance.choice((", ", " and ", " with ")).join(said.things)
    everything = [*said.adjectives, said.noun, *said.things, *said.place]
    chance.shuffle(everything)
    link = ", " if things.startswith(LACKING) else chance.choice(WITH)
    return form.format(
        a=joined,
        n=said.noun,
        w=link + things if things else "",
        w2=things or "music",
        k=(", " if chance.random() < 0.3 else " ") + " ".join(said.place),
        article="an" if (joined or said.noun)[:1] in "aeiou" else "a",
        list=", ".join(everything),
    )
