"""Captions: what a user might write to ask for a piece with the attributes of a brief.

The attributes, their order and their wording are drawn at random. No wording of one attribute's
value contradicts another value. Some sentence forms (`HELD_OUT_FORMS`) and every tenth combination
of attributes (`is_held_out`) never occur in training. They are reserved for evaluation.
"""

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from scripts.models.music.brief import Brief
from scripts.models.music.composition import FLAT_NAMES, NOTE_NAMES

SPEED_WORDS: Final = MappingProxyType(
    {
        "slow": "slow;calm;relaxed;slow-paced;unhurried;leisurely;peaceful;downtempo;gentle;"
        "laid-back;relaxing;lazy;drowsy;tranquil;very slow;soothing",
        "medium": "medium;mid-tempo;moderate;walking;steady;medium-paced;moderately paced;"
        "easy-going;moderate tempo;medium speed",
        "fast": "fast;quick;energetic;upbeat;driving;rapid;lively;fast-paced;up-tempo;"
        "hectic;brisk;very fast;frantic;exciting;high-energy;uptempo",
    }
)
MODE_WORDS: Final = MappingProxyType(
    {
        "major": "happy;cheerful;joyful;uplifting;sunny;optimistic;playful;glad;major;major key;"
        "feel-good;hopeful;triumphant;merry;positive;joyous;celebratory;sweet",
        "minor": "sad;melancholic;gloomy;mournful;sombre;somber;tragic;minor;minor key;lonely;"
        "moody;sorrowful;mysterious;melancholy;tense;dramatic;haunting;nostalgic;wistful;unhappy;eerie",
    }
)
BRIGHTNESS_WORDS: Final = MappingProxyType(
    {
        True: "bright;sparkling;brilliant;shimmering;crisp;shiny;clear;glittering;radiant;glassy;"
        "high-pitched;bright-sounding",
        False: "dark;warm;mellow;muted;soft;dull;deep;muffled;low;velvety;round;dark-sounding",
    }
)
DENSITY_ADJECTIVES: Final = MappingProxyType(
    {
        "sparse": "sparse;minimal;spacious;simple;minimalist;empty;bare;airy;uncluttered;quiet",
        "dense": "dense;busy;full;intricate;rich;packed;complex;thick;crowded;flowing",
    }
)
DENSITY_PHRASES: Final = MappingProxyType(
    {
        "sparse": "few notes;only a few notes;long notes;lots of space;plenty of silence;"
        "not many notes;a sparse texture",
        "dense": "many notes;lots of notes;rapid notes;a busy texture;a dense texture;"
        "running notes;notes everywhere",
    }
)
DRUM_WORDS: Final = (
    "drums;a drum beat;a beat;percussion;drum kit;a strong beat;beats;a rhythm section;"
    "punchy drums;bassy drums;drum machine;steady drums;live drums;a drum loop;kick and snare;"
    "hi-hats;heavy drums;drumming;a groove"
)
GROOVE_WORDS: Final = MappingProxyType(
    {
        "backbeat": "a backbeat;a rock beat;rock drums;a pop beat",
        "four": "a four on the floor beat;a dance beat;a kick on every beat;a club beat;"
        "disco drums",
        "half": "a half-time beat;half-time drums;slow heavy drums",
        "hiphop": "a hip hop beat;boom bap drums;a laid-back drum beat",
        "shuffle": "a shuffle;a swinging beat;brushed drums;jazz drums",
        "light": "light percussion;shakers;a shaker;soft percussion;gentle drums;hand percussion",
    }
)
NO_DRUM_WORDS: Final = (
    "no drums;without drums;drumless;no percussion;without percussion;beatless;no beat;"
    "without a beat;without any drums;free of drums;no drum kit"
)
LEAD_WORDS: Final = MappingProxyType(
    {
        "piano": "piano;grand piano;keys;electric piano;a piano;keyboard;upright piano;solo piano",
        "bells": "bells;music box;celesta;glockenspiel;chimes;vibraphone;a music box;marimba;"
        "tiny bells",
        "harp": "harp;plucked strings;a harp;kalimba;koto;pizzicato;lute;banjo;plucks",
        "synth": "synth;synthesizer;synth lead;electronic lead;analog synth;a synthesizer;"
        "retro synth;sawtooth lead;synths;a buzzy synth",
        "flute": "flute;a flute;recorder;whistle;ocarina;pan pipes;clarinet;wooden flute",
        "strings": "strings;violin;a violin;cello;string section;fiddle;bowed strings;orchestra",
    }
)
PART_WORDS: Final = MappingProxyType(
    {
        "melody": "melody;tune;solo;theme;line",
        "arpeggio": "arpeggio;arpeggios;arpeggiated chords;broken chords;arpeggiator;runs;"
        "arpeggiated pattern",
    }
)
CHORD_WORDS: Final = MappingProxyType(
    {
        "pad": "pads;a soft pad;a pad;ambient pads;lush pads;synth pads;warm pad;string pad;drones",
        "organ": "organ;an organ;church organ;organ chords;hammond organ;harmonium",
        "piano": "piano chords;piano accompaniment;rhodes chords;chords on the piano;keys chords",
        "guitar": "guitar;acoustic guitar;strummed guitar;a guitar;guitar chords;ukulele",
    }
)
BASS_WORDS: Final = MappingProxyType(
    {
        "round": "bass;deep bass;sub bass;a bass;warm bass;soft bass;upright bass",
        "picked": "bass guitar;electric bass;a bassline;bass line;picked bass",
        "synth": "synth bass;fat bass;electronic bass;bass synth;a heavy bassline",
    }
)
STYLE_WORDS: Final = MappingProxyType(
    {
        "pop": "pop;pop song;radio pop;indie pop",
        "80s pop": "80s pop;80s;eighties pop;synthpop;1980s;new wave;synthwave;retro",
        "rock": "rock;rock song;indie rock;classic rock;punk rock;garage rock",
        "techno": "techno;trance;electronic dance;edm;rave;electro",
        "house": "house;deep house;disco;dance;club;funk",
        "hip hop": "hip hop;rap beat;trap;boom bap;r&b;trip hop",
        "lo-fi": "lo-fi;lofi;chillhop;chill;study;lo-fi hip hop;chillout",
        "ambient": "ambient;atmospheric;meditation;drone;new age;dreamy;floating;sleep",
        "lullaby": "lullaby;cradle song;bedtime;nursery",
        "folk": "folk;country;celtic;acoustic;campfire;bluegrass;singer-songwriter",
        "cinematic": "cinematic;film score;epic;soundtrack;trailer;movie;game score",
        "classical": "classical;baroque;chamber;romantic;concert;sonata;waltz",
        "jazz": "jazz;swing;lounge;bossa nova;smooth jazz;blues;cafe",
        "chiptune": "chiptune;8-bit;video game;arcade;retro game;nintendo",
        "gospel": "gospel;church;hymn;soul;choir;sunday",
    }
)
NOUNS: Final = (
    "track;song;piece;tune;music;loop;composition;instrumental;backing track;beat tape;"
    "soundtrack;number;sketch;jam;groove;background music;theme"
)
SCENES: Final = (
    "rain on a tin roof;a walk in the forest;driving through the city at night;the sea at dawn;"
    "a summer evening;snow falling on the mountains;an old black and white film;coffee in the "
    "morning;stars over the desert;a train ride home;children in the garden;a long winter;"
    "my best friend's birthday;the last day of school;a robot in love;space travel;"
    "underwater caves;two cats on a sofa;autumn leaves;a castle in the clouds;a broken heart;"
    "the end of the world;sunrise;midnight;a candle in the window;a little boat on the river;"
    "the market on saturday;fireworks;an empty street;clouds passing by;dancing in the kitchen;"
    "waiting for the bus;a secret garden;first light;the moon;a dragon and a knight"
)
# The share of captions with a phrase that says nothing about the music.
SCENE_SHARE = 0.15


def split_words(text: str) -> tuple[str, ...]:
    """Return the wordings of a list that is separated by semicolons."""
    return tuple(text.split(";"))


def all_wordings() -> tuple[str, ...]:
    """Return the wordings of all attributes."""
    lists = [DRUM_WORDS, NO_DRUM_WORDS, NOUNS, SCENES]
    for table in (
        SPEED_WORDS, MODE_WORDS, BRIGHTNESS_WORDS, DENSITY_ADJECTIVES, DENSITY_PHRASES,
        GROOVE_WORDS, LEAD_WORDS, PART_WORDS, CHORD_WORDS, BASS_WORDS, STYLE_WORDS,
    ):  # fmt: skip
        lists += table.values()
    return tuple(wording for text in lists for wording in split_words(text))


MENTION_PROBABILITY: Final = {
    "speed": 0.6, "mode": 0.5, "bright": 0.5, "density": 0.5, "kit": 0.65, "lead": 0.65,
    "chords": 0.4, "bass": 0.3, "style": 0.75, "key": 0.3, "tempo": 0.15,
}  # fmt: skip
# Of {a} adjectives, {n} noun, {w} "with" phrases, {k} key and tempo.
SENTENCE_FORMS: Final = (
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
HELD_OUT_FORMS: Final = (
    "could you write {article} {a} {n}{w}{k}?",
    "{w2}: {article} {a} {n}{k}",
    "{a} and nice, {article} {n}{k}{w}",
    "let us hear {a} {n}{k}{w}!",
)
CONNECTORS: Final = (" with ", " with ", ", ", " featuring ", " and ", " using ", ": ")
NEGATIONS: Final = ("no ", "without", "free of", "drumless", "beatless")


@dataclass(slots=True)
class CaptionParts:
    """The wordings chosen for a caption, and the attributes that they express."""

    attributes: set[str] = field(default_factory=set)
    adjectives: list[str] = field(default_factory=list)
    things: list[str] = field(default_factory=list)
    noun: str = ""
    place: list[str] = field(default_factory=list)


def is_held_out(brief: Brief) -> bool:
    """Whether a brief's combination of attributes is reserved for evaluation."""
    drummed = "drums" if brief.groove else "none"
    combination = (brief.speed, brief.mode, brief.bright, brief.density, drummed, brief.lead)
    return zlib.crc32("/".join(map(str, combination)).encode()) % 10 == 0


def write_caption(
    brief: Brief,
    rng: random.Random,
    forms: tuple[str, ...] = SENTENCE_FORMS,
    probabilities: Mapping[str, float] = MENTION_PROBABILITY,
) -> tuple[str, set[str]]:
    """Return a caption and the attributes (keys of `MENTION_PROBABILITY`) that it expresses."""
    parts = _choose_words(
        brief, {name for name in MENTION_PROBABILITY if rng.random() < probabilities[name]}, rng
    )
    rng.shuffle(parts.adjectives)
    rng.shuffle(parts.things)
    text = _build_sentence(parts, rng.choice(forms), rng)
    if rng.random() < SCENE_SHARE:
        text += rng.choice((", ", " for ", " like ", " about ")) + rng.choice(split_words(SCENES))
    return " ".join(text.replace(" ,", ",").strip(" ,:").split()), parts.attributes


def _choose_words(brief: Brief, attributes: set[str], rng: random.Random) -> CaptionParts:
    """Choose wordings for those of the attributes that have any."""
    parts = CaptionParts()

    def add(name: str, text: str | None, phrases: list[str], ending: str = "") -> None:
        if name in attributes and text:
            phrases.append(rng.choice(split_words(text)) + ending)
            parts.attributes.add(name)

    add("speed", SPEED_WORDS[brief.speed], parts.adjectives)
    add("mode", MODE_WORDS[brief.mode], parts.adjectives)
    add("bright", BRIGHTNESS_WORDS[brief.bright], parts.adjectives)
    if rng.random() < 0.6:
        add("density", DENSITY_ADJECTIVES.get(brief.density), parts.adjectives)
    else:
        add("density", DENSITY_PHRASES.get(brief.density), parts.things)
    add("kit", _drum_words(brief, rng), parts.things)
    part = " " + rng.choice(split_words(PART_WORDS[brief.part])) if rng.random() < 0.5 else ""
    add("lead", LEAD_WORDS[brief.lead], parts.things, part)
    add("chords", CHORD_WORDS.get(brief.chords), parts.things)
    add("bass", BASS_WORDS.get(brief.bass), parts.things)
    style_words = [""]
    add("style", STYLE_WORDS.get(brief.style), style_words)
    parts.noun = " ".join((style_words[-1], rng.choice(split_words(NOUNS)))).strip()
    if "key" in attributes:
        parts.place.append(f"in {_tonic_name(brief.tonic, rng)} {brief.mode}")
        parts.attributes |= {"key", "mode"}
    if "tempo" in attributes:
        quarters = round(brief.quarters * rng.uniform(0.97, 1.03))
        parts.place.append(f"{rng.choice(('at ', ''))}{quarters} bpm")
        parts.attributes |= {"tempo", "speed"}
    return parts


def _drum_words(brief: Brief, rng: random.Random) -> str:
    if not brief.groove:
        return NO_DRUM_WORDS
    return GROOVE_WORDS[brief.groove] if rng.random() < 0.25 else DRUM_WORDS


def _tonic_name(number: int, rng: random.Random) -> str:
    """Return a spelling of a tonic: C#, C sharp, Db or D flat."""
    name = NOTE_NAMES[number]
    if name in FLAT_NAMES and rng.random() < 0.5:
        name = FLAT_NAMES[name]
    if len(name) > 1 and rng.random() < 0.5:
        name = name[0] + {"#": " sharp", "b": " flat"}[name[1]]
    return name.lower()


def _build_sentence(parts: CaptionParts, form: str, rng: random.Random) -> str:
    """Put the wordings into a sentence form."""
    joined = rng.choice((" ", ", ", " and ")).join(parts.adjectives)
    things = rng.choice((", ", " and ", " with ")).join(parts.things)
    everything = [*parts.adjectives, parts.noun, *parts.things, *parts.place]
    rng.shuffle(everything)
    link = ", " if things.startswith(NEGATIONS) else rng.choice(CONNECTORS)
    return form.format(
        a=joined,
        n=parts.noun,
        w=link + things if things else "",
        w2=things or "music",
        k=(", " if rng.random() < 0.3 else " ") + " ".join(parts.place),
        article="an" if (joined or parts.noun)[:1] in "aeiou" else "a",
        list=", ".join(everything),
    )
