"""Pop2Piano on the engine: from songs to piano covers, and from tokens to a check of them.

The order is features, tokens, notes. Only the features are computed with libraries. Each song is a
generation of its own with the task's seed (specification 8.7).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from executor.audio import decode, midi, song_features
from executor.audio.song_features import FeatureSettings, SongFeatures
from executor.engine.library import MAX_POSITIONS, check
from executor.engine.matrices import Kind, Matrices
from executor.engine.pool import Control, Pool
from executor.engine.pop2piano import Pop2Piano, Steps
from executor.engine.sampling import Sampling, task_sampling
from executor.engine.t5 import MAX_NUMBERS
from executor.errors import ModelRefused, TaskFailed, with_task_failures
from executor.job import Difference
from executor.models.json_files import check_integer, configuration
from executor.models.weights import Weights
from protocol.model_limits import DEFAULT_COMPOSER
from protocol.work import kept_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from executor.audio.decode import Mono

# The distributions that compute features, for the class's runtime. soundfile reads FLAC, soxr
# resamples files, and resampy has a filter. The C library computes numpy's functions.
LIBRARIES = ("essentia", "numpy", "resampy", "soundfile", "soxr")
# Seconds. The beats go on for three bars after the longest input: 18 s at 40 beats a minute. Notes
# end well before a minute after it.
MAX_OUTPUT_SECONDS = decode.MAX_SECONDS + 60
# Far above any model's, so that a window and the filters of a spectrogram stay within memory.
FEATURE_LIMITS = (
    ("sampling_rate", 1_000, 384_000),
    ("window_size", 16, 65_536),
    ("hop_length", 16, 65_536),
    ("feature_size", 1, 65_536),
    ("num_bars", 1, 64),
)
MAX_FILTER_NUMBERS = 2**24
TYPES = (SPECIAL, NOTE, VELOCITY, TIME) = (
    "TOKEN_SPECIAL",
    "TOKEN_NOTE",
    "TOKEN_VELOCITY",
    "TOKEN_TIME",
)
# The special token after which a row says nothing.
END = 1


@dataclass(frozen=True, slots=True)
class Request:
    """What a task asks of a model: at most `steps` tokens for each row of a song."""

    composer: str
    seed: int
    steps: int
    sampling: Sampling


class PianoModel:
    """A Pop2Piano model in memory."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        """Map a checked model folder. Raises `ModelRefused` for what the engine cannot compute."""
        weights = Weights(folder)
        config, generation = (
            configuration(folder, name) for name in ("config.json", "generation_config.json")
        )
        self._model = Pop2Piano(config, generation, Matrices(weights, kind))
        weights.refuse_unread()
        self._features = read_features(folder, self._model.width)
        self._notation = Notation(folder)

    def request(self, composer: str | None, seed: int, members: Mapping[str, Any]) -> Request:
        """Return what a task asks, with the model's own settings where `members` are silent.

        `members` are those of the task's `generation_config` that are not null. Raises
        `TaskFailed`.
        """
        composers = self._model.settings.composers
        composer = composer or DEFAULT_COMPOSER
        if composer not in composers:
            problem = f"{composer!r} is none of {', '.join(composers)}"
            raise TaskFailed("generation-rejected", problem)
        for name in ("num_beams", "num_return_sequences"):
            if members.get(name, 1) != 1:
                raise TaskFailed("generation-rejected", f"{name} is {members[name]}, not 1")
        steps = members.get("max_new_tokens", self._model.settings.steps)
        if not 1 <= steps <= MAX_POSITIONS:
            raise TaskFailed("generation-rejected", f"{steps} tokens, at most {MAX_POSITIONS}")
        sampling = task_sampling(self._model.settings.sampling, members)
        return Request(composer, seed, steps, sampling)

    def features(self, song: "Mono") -> SongFeatures:
        """Return what the model hears of a song. Raises `TaskFailed` (no-notes)."""
        # The beat tracker finds no beat in a second of sound. What else fails then are operations
        # on arrays, in their own words.
        return with_task_failures(
            lambda: song_features.extract(song, decode.RATE, self._features),
            "no-notes",
            lambda _: "no beat was found: the song is shorter than a few beats, or has no rhythm",
        )

    def generate(
        self,
        request: Request,
        features: SongFeatures,
        pool: Pool | None = None,
        control: Control | None = None,
    ) -> Steps:
        """Generate the tokens of one song. Raises `TaskFailed`, `Abstained`, `MemoryError`."""
        hidden = self._encode(request, features, pool, control)
        status, steps = self._model.generate(
            hidden, request.steps, request.seed, request.sampling, pool, control
        )
        check(status)
        return steps

    def replay(
        self,
        request: Request,
        features: SongFeatures,
        tokens: "NDArray[np.int32]",
        pool: Pool | None = None,
        control: Control | None = None,
    ) -> tuple[Steps, Difference | None]:
        """Compute all steps of a song's `tokens` `(rows, steps)` anew, in passes of many steps.

        Returns them, and the first token that the task's seed does not draw, as one of sequence 0,
        None if all are right. Raises `ValueError` for tokens that are not of this song.
        """
        hidden = self._encode(request, features, pool, control)
        status, steps, difference = self._model.replay(
            hidden, tokens, request.steps, request.seed, request.sampling, pool, control
        )
        if difference is None:
            check(status)
        return steps, difference

    def kept_logits(self, steps: Steps) -> "NDArray[np.float32]":
        """Return the logits of a song's kept steps `(n, vocabulary)`, as `work` has them.

        They are step by step, then in the order of the rows; a row that has ended has none.
        """
        ends = np.isin(steps.tokens, self._model.settings.ends)
        ended = np.logical_or.accumulate(ends, axis=1)
        kept = kept_steps(steps.tokens.shape[1])
        # A row still draws at the step of its end.
        drawn = [np.full(len(ends), True) if step == 0 else ~ended[:, step - 1] for step in kept]
        parts = [steps.logits[rows, slot] for slot, rows in enumerate(drawn)]
        return np.concatenate(parts)

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return int(self._model.vocabulary)

    def notes(
        self,
        features: SongFeatures,
        tokens: "NDArray[np.int32]",
        max_seconds: int = MAX_OUTPUT_SECONDS,
    ) -> tuple[midi.Note, ...]:
        """Return the notes that `tokens` `(rows, steps)` stand for. Raises `TaskFailed`."""
        start = np.full((len(tokens), 1), self._model.settings.start, np.int32)
        try:
            timed = self._notation.read(np.concatenate([start, tokens], axis=1), features)
            notes = midi.canonical(timed)
        except (ValueError, IndexError) as error:
            raise TaskFailed("generation-rejected", f"tokens that are no notes: {error}") from error
        if any(note.end > max_seconds * midi.TICKS_PER_SECOND for note in notes):
            raise TaskFailed("generation-rejected", "notes long after the end of the song")
        if not notes:
            raise TaskFailed(
                "no-notes", "the model wrote no note: choose another song, composer or seed"
            )
        return notes

    def _encode(
        self,
        request: Request,
        features: SongFeatures,
        pool: Pool | None,
        control: Control | None,
    ) -> "NDArray[np.float32]":
        """Return the encoder's hidden states of a song."""
        rows, frames, _ = features.spectrograms.shape
        length = max(request.steps, frames + 1)  # the composer's position is one more
        if length > MAX_POSITIONS or rows * length > MAX_NUMBERS:
            problem = f"{rows} rows of {frames} frames and {request.steps} tokens are too many"
            raise TaskFailed("generation-rejected", problem)
        status, hidden = self._model.encode(features.spectrograms, request.composer, pool, control)
        check(status)
        return hidden


class Notation:
    """How tokens are notes: the vocabulary of transformers' Pop2PianoTokenizer."""

    def __init__(self, folder: Path) -> None:
        """Read the vocabulary of a model folder. Raises `ModelRefused`."""
        settings = configuration(folder, "tokenizer_config.json")
        self._velocity = check_integer(
            "default_velocity", settings.get("default_velocity", 77), 1, 127
        )
        self._bars = check_integer("num_bars", settings.get("num_bars", 2), 1, 64)
        self._end = special_token(folder, settings, "eos_token", "1")
        # A token that is not in the vocabulary counts as a time.
        self._unknown = (TIME, special_token(folder, settings, "unk_token", "-1"))
        vocabulary = configuration(folder, "vocab.json")
        if not vocabulary:
            raise ModelRefused("the folder has no vocab.json")
        self._tokens: dict[int, tuple[str, int]] = {}
        # As transformers counts them, a note above this one cannot be told.
        highest = sum(word.endswith("NOTE") for word in vocabulary)
        for word, number in vocabulary.items():
            value, _, form = word.partition("_")
            if form not in TYPES or not value.isascii() or not value.isdigit():
                raise ModelRefused(f"vocab.json: {word!r:.80} is no token of Pop2Piano")
            check_integer(
                f"vocab.json: {word:.80}", int(value), 0, highest if form == NOTE else 2**31
            )
            self._tokens[check_integer(f"vocab.json: {word:.80}", number, 0, 2**31)] = (
                form,
                int(value),
            )

    def read(self, tokens: "NDArray[np.int32]", features: SongFeatures) -> Iterator[midi.TimedNote]:
        """Return the notes of rows of tokens, in any order. Each begins with the start token.

        Raises `IndexError` for notes outside the song, `ValueError` for some before it.
        """
        if not (tokens == self._end).any():  # one is taken to follow the last (8.7)
            tokens = np.pad(tokens, ((0, 0), (0, 1)), constant_values=self._end)
        # As the tokenizer has it: no row counts beyond the last end of any row.
        tokens = tokens[:, : np.nonzero(tokens == self._end)[1].max() + 1]
        row_steps = self._bars * song_features.BEATS_PER_BAR
        times, first = features.later_steps, features.steps[0]
        for number, row in enumerate(tokens):
            begin = number * row_steps
            limit = begin + row_steps + song_features.BEATS_PER_BAR
            for onset, offset, pitch in self._read_row(row.tolist(), begin, limit):
                start, end = (times[step] - times[0] for step in (onset, offset))
                if end < start:
                    raise ValueError("a note that ends before it begins")
                if end > start:
                    yield float(start + first), float(end + first), pitch, self._velocity

    def _read_row(
        self, tokens: Sequence[int], begin: int, limit: int
    ) -> Iterator[tuple[int, int, int]]:
        """Yield the first and the last step and the pitch of each note of a row.

        Times move the present on, up to `limit`. A note begins its pitch, or ends it. It then
        begins again, unless the velocity is 0. What never ends does so at `limit`.
        """
        now, velocity = begin, 0
        onsets: dict[int, int] = {}
        for form, value in (self._tokens.get(token, self._unknown) for token in tokens):
            if form == SPECIAL and value == END:
                break
            if form == TIME:
                now = min(now + value, limit)
            elif form == VELOCITY:
                velocity = value
            elif form == NOTE:
                onset = onsets.get(value)
                if onset is None:
                    onsets[value] = now
                elif onset < now:
                    yield onset, now, value
                    del onsets[value]
                    if velocity:
                        onsets[value] = now
        for pitch, onset in onsets.items():
            yield onset, max(now, limit, onset + 1), pitch


def read_features(folder: Path, width: int) -> FeatureSettings:
    """Return how a model hears; `width` is that of its hidden states. Raises `ModelRefused`."""
    members = configuration(folder, "processor_config.json").get("feature_extractor")
    if members is None:
        members = configuration(folder, "preprocessor_config.json")
    if not isinstance(members, Mapping) or not members:
        raise ModelRefused("the folder has no settings of a feature extractor")
    own = FeatureSettings()
    sizes = {
        name: check_integer(name, members.get(name, getattr(own, name)), least, most)
        for name, least, most in FEATURE_LIMITS
    }
    lowest = members.get("min_frequency", own.min_frequency)
    if type(lowest) not in (int, float) or not 0 <= lowest <= sizes["sampling_rate"] // 2:
        raise ModelRefused(f"min_frequency is {lowest!r:.80}")
    if sizes["feature_size"] != width:
        raise ModelRefused(f"feature_size is {sizes['feature_size']}; the model has {width}")
    if (sizes["window_size"] // 2 + 1) * width > MAX_FILTER_NUMBERS:
        raise ModelRefused(f"a window of {sizes['window_size']} has too many filters")
    return FeatureSettings(**sizes, min_frequency=lowest)


def special_token(folder: Path, settings: Mapping[str, Any], name: str, default: str) -> int:
    """Return the number of a special token. Raises `ModelRefused`."""
    tables = (settings, configuration(folder, "special_tokens_map.json"))
    tokens = [table[name] for table in tables if name in table] or [default]
    values = {str(token.get("content") if isinstance(token, dict) else token) for token in tokens}
    value = values.pop()
    if values or not value.removeprefix("-").isdecimal():
        raise ModelRefused(f"the tokenizer's {name} is {value!r:.80}, or another one")
    return int(value)
