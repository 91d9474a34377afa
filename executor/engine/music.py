"""MusicGen on the engine: from a prompt to waveforms, and from tokens to a check of them.

The order is tokenizer, text encoder, decoder, codec. Only the tokenizer is a library's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from executor.engine.encodec import MAX_SAMPLES, EncodecDecoder
from executor.engine.library import MAX_POSITIONS, Status, check
from executor.engine.matrices import Kind, Matrices
from executor.engine.musicgen import MusicgenDecoder, Song, Steps
from executor.engine.pool import Control, Pool
from executor.engine.sampling import Sampling, read_sampling, read_steps, task_sampling
from executor.engine.t5 import T5Encoder
from executor.errors import ModelRefused, TaskFailed, describe_error
from executor.job import Difference
from executor.models.json_files import check_integer, configuration
from executor.models.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL_TYPES = (MUSICGEN, MELODY) = ("musicgen", "musicgen_melody")
# In Hz; far above any model's, and the most that a WAV file's header can say.
MAX_RATE = 2**31 - 1
# Of a melody model's configuration: the notes of an octave, and the positions of a melody.
CHROMA = (("num_chroma", 12), ("chroma_length", 235))
# Bytes of the keys and values of what runs together, its prompts included. One sequence may take
# more.
CACHE_BYTES = 2**29
# Members of generation_config.json that the engine computes with, or that change no token.
SAMPLING_SETTINGS = ("do_sample", "temperature", "top_k", "top_p", "guidance_scale")
LENGTH_SETTINGS = ("max_length", "max_new_tokens")
NEUTRAL_SETTINGS = ("_from_model_config", "transformers_version", "use_cache", "pad_token_id")
START_SETTINGS = ("bos_token_id", "decoder_start_token_id")
# A value at which a setting of transformers does nothing.
IDLE_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "num_beams": 1,
        "num_return_sequences": 1,
        "repetition_penalty": 1.0,
        "eos_token_id": None,
        "min_length": 0,
        "renormalize_logits": False,
    }
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a task asks of a model: `steps` tokens for each of `seeds`.

    `prompt` are the ids of the prompt's tokens.
    """

    prompt: Sequence[int]
    seeds: Sequence[int]
    steps: int
    sampling: Sampling


class MusicModel:
    """A MusicGen model in memory."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        """Map a checked model folder. Raises `ModelRefused` for what the engine cannot compute."""
        config = configuration(folder, "config.json")
        if config.get("model_type") not in MODEL_TYPES:
            raise ModelRefused(f"config.json: model_type is none of {', '.join(MODEL_TYPES)}")
        self._weights = Weights(folder)
        matrices = Matrices(self._weights, kind)
        decoder, text, audio = (
            part_of(config, name) for name in ("decoder", "text_encoder", "audio_encoder")
        )
        self._tokenizer = read_tokenizer(folder)
        self._encoder = T5Encoder(text, matrices, "text_encoder.")
        chroma = read_chroma(config) if config["model_type"] == MELODY else None
        self._decoder = MusicgenDecoder(decoder, matrices, self._encoder.width, chroma)
        self._channels = self._decoder.codebooks // self._decoder.delays
        self._codec = EncodecDecoder(audio, self._weights, self._decoder.delays)
        rate = audio.get("sampling_rate", 24_000)
        self.sampling_rate = check_integer("audio_encoder.sampling_rate", rate, 1, MAX_RATE)
        if self._codec.entries < self._decoder.vocabulary:
            raise ModelRefused("config.json: the codec has fewer entries than the decoder tokens")
        # Of the decoder's positions, and of what the codec decodes.
        self._longest = min(self._decoder.max_steps, MAX_SAMPLES // self._codec.samples_per_token)
        self._steps, self._sampling = read_settings(folder, self._decoder.vocabulary)

    def request(self, prompt: str, seeds: Sequence[int], members: Mapping[str, Any]) -> Request:
        """Return what a task asks, with the model's own settings where `members` are silent.

        `members` are those of the task's `generation_config` that are not null. Raises
        `TaskFailed`.
        """
        steps = members.get("max_new_tokens", self._steps)
        if not 1 <= steps <= self._longest:
            raise TaskFailed("generation-rejected", f"{steps} tokens, at most {self._longest}")
        ids = tuple(self._tokenizer.encode(prompt).ids)
        return Request(ids, tuple(seeds), steps, task_sampling(self._sampling, members))

    def batch(self, request: Request) -> int:
        """Return how many sequences of a request run together, so that their caches stay small."""
        shared, each = self._cache_bytes(request)
        return max(1, (CACHE_BYTES - shared) // each)

    def fitting(self, requests: Mapping[int, Request]) -> list[int]:
        """Return the keys of the requests that run together, so that their caches stay small.

        One that does not fit beside those before it is left out.
        """
        room, fitting = CACHE_BYTES, list[int]()
        for key, request in requests.items():
            shared, each = self._cache_bytes(request)
            size = shared + each * len(request.seeds)
            if size <= room:
                room -= size
                fitting.append(key)
        return fitting

    def _cache_bytes(self, request: Request) -> tuple[int, int]:
        """Return the bytes of a request's keys and values: shared by its sequences, and of each."""
        guided = request.sampling.guidance > 1
        return self._decoder.cache_bytes(len(request.prompt), request.steps, guided=guided)

    @property
    def shape(self) -> tuple[int, int]:
        """The codebooks of a step, and the tokens of each."""
        return self._decoder.codebooks, self._decoder.vocabulary

    def generate(
        self, request: Request, pool: Pool | None = None, control: Control | None = None
    ) -> Steps:
        """Generate the tokens of all sequences. Raises `TaskFailed`, `Abstained`, `MemoryError`."""
        hidden = self._read_prompt(request, pool, control)
        status, steps = self._decoder.generate(
            hidden, request.steps, request.seeds, request.sampling, pool, control
        )
        check(status)
        return steps

    def song(self, request: Request, control: Control, pool: Pool | None = None) -> Song:
        """Read a request's prompt for `generate_together`. Raises as `generate`."""
        hidden = self._read_prompt(request, pool, control)
        return Song(hidden, request.steps, request.seeds, request.sampling, control)

    def generate_together(
        self, songs: Sequence[Song], pool: Pool | None = None
    ) -> Iterator[tuple[int, Status, Steps]]:
        """Generate the tokens of several requests; each has the bits that it has alone.

        Yields each when it has ended, as `MusicgenDecoder.generate_together`.
        """
        return self._decoder.generate_together(songs, pool)

    def replay(
        self,
        request: Request,
        tokens: "NDArray[np.int32]",
        pool: Pool | None = None,
        control: Control | None = None,
    ) -> "tuple[Steps, Difference | None]":
        """Compute all steps of `tokens` `(sequences, steps, codebooks)` anew, in one pass.

        Returns them, and the first token that the task's seed does not draw; None if all are right.
        """
        hidden = self._read_prompt(request, pool, control)
        status, steps, difference = self._decoder.replay(
            hidden, tokens, request.seeds, request.sampling, pool, control
        )
        if status is not Status.DIFFERENT:
            check(status)
        return steps, difference

    def decode(
        self,
        tokens: "NDArray[np.int32]",
        pool: Pool | None = None,
        control: Control | None = None,
    ) -> "NDArray[np.float32]":
        """Return the waveform `(channels, frames)` of a sequence's tokens `(steps, codebooks)`."""
        codes = self._decoder.codes(tokens)
        sides = []
        for channel in range(self._channels):
            status, samples = self._codec.decode(codes[channel :: self._channels], pool, control)
            check(status)
            sides.append(samples)
        return np.stack(sides)

    def _read_prompt(
        self, request: Request, pool: Pool | None, control: Control | None
    ) -> "NDArray[np.float32]":
        """Return the hidden states of a prompt, as the decoder reads them."""
        ids = np.array([request.prompt], np.int64)
        try:
            status, hidden = self._encoder.encode(ids, pool, control)
        except ValueError as error:  # a tokenizer of another model, or a prompt of no tokens
            raise TaskFailed("generation-rejected", str(error)) from error
        if not self._decoder.has_room(ids.size, request.steps):
            problem = (
                f"a prompt of {ids.size} tokens and {request.steps} tokens of sound are too many"
            )
            raise TaskFailed("generation-rejected", problem)
        check(status)
        return self._decoder.project(hidden[0], pool)


def part_of(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of a model's configuration. Raises `ModelRefused`."""
    part = config.get(name)
    if not isinstance(part, dict):
        raise ModelRefused(f"config.json: {name} is missing")
    return part


def read_chroma(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the sizes of a melody model's melody. Raises `ModelRefused`."""
    notes, length = (
        check_integer(name, config.get(name, default), 1, MAX_POSITIONS // 2)
        for name, default in CHROMA
    )
    return notes, length


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a model folder. Raises `ModelRefused`."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelRefused("the folder has no tokenizer.json, which the engine reads")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower type
        raise ModelRefused(f"tokenizer.json cannot be loaded: {describe_error(error)}") from error
    # As transformers reads a prompt, whatever the file says.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_settings(folder: Path, start: int) -> tuple[int, Sampling]:
    """Return a model's own number of tokens, and how it chooses them.

    `start` is the token before the first. Raises `ModelRefused` for a setting that the engine
    does not compute.
    """
    settings = configuration(folder, "generation_config.json")
    for name, value in settings.items():
        known = name in (*SAMPLING_SETTINGS, *LENGTH_SETTINGS, *NEUTRAL_SETTINGS)
        idle = name in IDLE_SETTINGS and value == IDLE_SETTINGS[name]
        starts = name in START_SETTINGS and value == start
        if not (known or idle or starts or value is None):
            raise ModelRefused(f"generation_config.json: the engine does not compute {name}")
    guidance = settings.get("guidance_scale")
    if guidance is not None and type(guidance) not in (int, float):
        raise ModelRefused(f"guidance_scale is {guidance!r:.80}")
    sampling = replace(read_sampling(settings), guidance=max(1.0, float(guidance or 1)))
    return read_steps(settings), sampling
