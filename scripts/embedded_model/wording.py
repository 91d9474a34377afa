"""The words for each attribute. What one list says, no other one contradicts."""

from types import MappingProxyType
from typing import Final

SPEED: Final = MappingProxyType(
    {
        "slow": "slow;calm;relaxed;slow-paced;unhurried;leisurely;peaceful;downtempo;gentle;"
        "laid-back;relaxing;lazy;drowsy;tranquil;very slow;soothing",
        "medium": "medium;mid-tempo;moderate;walking;steady;medium-paced;moderately paced;"
        "easy-going;moderate tempo;medium speed",
        "fast": "fast;quick;energetic;upbeat;driving;rapid;lively;fast-paced;up-tempo;"
        "hectic;brisk;very fast;frantic;exciting;high-energy;uptempo",
    }
)
MODE: Final = MappingProxyType(
    {
        "major": "happy;cheerful;joyful;uplifting;sunny;optimistic;playful;glad;major;major key;"
        "feel-good;hopeful;triumphant;merry;positive;joyous;celebratory;sweet",
        "minor": "sad;melancholic;gloomy;mournful;sombre;somber;tragic;minor;minor key;lonely;"
        "moody;sorrowful;mysterious;melancholy;tense;dramatic;haunting;nostalgic;wistful;unhappy;eerie",
    }
)
BRIGHTNESS: Final = MappingProxyType(
    {
        True: "bright;sparkling;brilliant;shimmering;crisp;shiny;clear;glittering;radiant;glassy;"
        "high-pitched;bright-sounding",
        False: "dark;warm;mellow;muted;soft;dull;deep;muffled;low;velvety;round;dark-sounding",
    }
)
DENSITY: Final = MappingProxyType(
    {
        "sparse": "sparse;minimal;spacious;simple;minimalist;empty;bare;airy;uncluttered;quiet",
        "dense": "dense;busy;full;intricate;rich;packed;complex;thick;crowded;flowing",
    }
)
DENSITY_AFTER: Final = MappingProxyType(
    {
        "sparse": "few notes;only a few notes;long notes;lots of space;plenty of silence;"
        "not many notes;a sparse texture",
        "dense": "many notes;lots of notes;rapid notes;a busy texture;a dense texture;"
        "running notes;notes everywhere",
    }
)
KIT: Final = (
    "drums;a drum beat;a beat;percussion;drum kit;a strong beat;beats;a rhythm section;"
    "punchy drums;bassy drums;drum machine;steady drums;live drums;a drum loop;kick and snare;"
    "hi-hats;heavy drums;drumming;a groove"
)
GROOVE: Final = MappingProxyType(
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
NO_KIT: Final = (
    "no drums;without drums;drumless;no percussion;without percussion;beatless;no beat;"
    "without a beat;without any drums;free of drums;no drum kit"
)
LEAD: Final = MappingProxyType(
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
PART: Final = MappingProxyType(
    {
        "melody": "melody;tune;solo;theme;line",
        "arpeggio": "arpeggio;arpeggios;arpeggiated chords;broken chords;arpeggiator;runs;"
        "arpeggiated pattern",
    }
)
CHORDS: Final = MappingProxyType(
    {
        "pad": "pads;a soft pad;a pad;ambient pads;lush pads;synth pads;warm pad;string pad;drones",
        "organ": "organ;an organ;church organ;organ chords;hammond organ;harmonium",
        "piano": "piano chords;piano accompaniment;rhodes chords;chords on the piano;keys chords",
        "guitar": "guitar;acoustic guitar;strummed guitar;a guitar;guitar chords;ukulele",
    }
)
BASS: Final = MappingProxyType(
    {
        "round": "bass;deep bass;sub bass;a bass;warm bass;soft bass;upright bass",
        "picked": "bass guitar;electric bass;a bassline;bass line;picked bass",
        "synth": "synth bass;fat bass;electronic bass;bass synth;a heavy bassline",
    }
)
STYLE: Final = MappingProxyType(
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
NOUN: Final = (
    "track;song;piece;tune;music;loop;composition;instrumental;backing track;beat tape;"
    "soundtrack;number;sketch;jam;groove;background music;theme"
)
SCENE: Final = (
    "rain on a tin roof;a walk in the forest;driving through the city at night;the sea at dawn;"
    "a summer evening;snow falling on the mountains;an old black and white film;coffee in the "
    "morning;stars over the desert;a train ride home;children in the garden;a long winter;"
    "my best friend's birthday;the last day of school;a robot in love;space travel;"
    "underwater caves;two cats on a sofa;autumn leaves;a castle in the clouds;a broken heart;"
    "the end of the world;sunrise;midnight;a candle in the window;a little boat on the river;"
    "the market on saturday;fireworks;an empty street;clouds passing by;dancing in the kitchen;"
    "waiting for the bus;a secret garden;first light;the moon;a dragon and a knight"
)
RARE = 0.15  # of captions say something that means nothing here


def words(text: str) -> tuple[str, ...]:
    """A list of wordings, written with semicolons."""
    return tuple(text.split(";"))


def everything() -> tuple[str, ...]:
    """All wordings there are."""
    lists = [KIT, NO_KIT, NOUN, SCENE]
    for table in (
        SPEED, MODE, BRIGHTNESS, DENSITY, DENSITY_AFTER, GROOVE, LEAD, PART, CHORDS, BASS, STYLE,
    ):  # fmt: skip
        lists += table.values()
    return tuple(wording for text in lists for wording in words(text))
