"""Pop2Piano: from the features of a song to tokens, and back to check them."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from executor.engine import library
from executor.engine.library import Status, address, kept_steps
from executor.engine.matrices import Matrices, MatrixStruct
from executor.engine.pool import Control, Pool
from executor.engine.sampling import Sampling, SamplingStruct, read_sampling, read_steps
from executor.engine.t5 import (
    DEFAULTS,
    MAX_LAYERS,
    Stack,
    StackStruct,
    check_length,
    read_config,
)
from executor.errors import ModelRefused
from executor.job import Difference
from executor.models.json_files import check_integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Values of transformers' Pop2PianoConfig where a configuration has none. It reads the activation
# and the gate from different members.
PIANO_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        **DEFAULTS,
        "vocab_size": 2_400,
        "composer_vocab_size": 21,
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "relu",
        "tie_word_embeddings": True,
    }
)
# Positions of a pass of replay, of all rows: their rows and the weights of a tile stay in caches.
REPLAY_POSITIONS = 192
# Settings of generation that are read, or that say nothing about tokens.
READ = frozenset(
    (
        *("composer_to_feature_token", "decoder_start_token_id", "eos_token_id", "pad_token_id"),
        *("max_length", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p"),
        *("bos_token_id", "transformers_version", "use_cache", "_from_model_config"),
        *("return_dict_in_generate", "output_scores", "output_logits", "output_attentions"),
        *("output_hidden_states", "early_stopping", "length_penalty"),  # of beams only
    )
)
# Values with which other settings change nothing, as have None, False, 0 and [].
NEUTRAL: Mapping[str, object] = MappingProxyType(
    {
        **dict.fromkeys(("num_beams", "num_return_sequences", "num_beam_groups"), 1),
        **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "typical_p"), 1.0),
        # Of assistant models, which are not used here.
        "num_assistant_tokens": 20,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.4,
        "assistant_lookbehind": 10,
        "target_lookbehind": 10,
    }
)
MAX_ENDS = 1_024


class ModelStruct(ctypes.Structure):
    """`he_pop2piano`."""

    _fields_ = (
        ("decoder", StackStruct),
        ("head", MatrixStruct),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("start", "pad", "end_count")),
        ("ends", ctypes.POINTER(ctypes.c_int32)),
    )


class CoverStruct(ctypes.Structure):
    """`he_cover`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "source", "steps")),
        ("hidden", ctypes.c_void_p),
        ("sampling", SamplingStruct),
        ("seed", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model generates, where a task says nothing else.

    `steps` is the most tokens of a row, without the one that it starts with.
    """

    composers: Mapping[str, int]
    start: int
    pad: int
    ends: tuple[int, ...]
    steps: int
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Steps:
    """What was generated.

    `tokens` are `(rows, steps)`, without the one that each row starts with. `logits` are
    `(rows, kept, vocabulary)`: of every 64 steps, those of the last one that the row has not ended
    before; zeros if there is none.
    """

    tokens: "NDArray[np.int32]"
    logits: "NDArray[np.float32]"


class Pop2Piano:
    """A Pop2Piano model, on the engine's kernels."""

    def __init__(
        self, config: Mapping[str, Any], generation: Mapping[str, Any], matrices: Matrices
    ) -> None:
        """Take a model's configurations and weights. Raises `ModelRefused`."""
        if config.get("model_type") != "pop2piano":
            raise ModelRefused(f"the model is {config.get('model_type')!r:.80}, not 'pop2piano'")
        settings = read_config(config, PIANO_DEFAULTS)
        layers = config.get("num_decoder_layers")
        layers = settings["num_layers"] if layers is None else layers
        check_integer("num_decoder_layers", layers, 1, MAX_LAYERS)
        table = matrices.same_tables(
            "shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
        )
        self.encoder = Stack(settings, matrices, "encoder", table)
        decoder = settings | {"is_decoder": True, "num_layers": layers}
        self.decoder = Stack(decoder, matrices, "decoder", table)
        self.width, self.vocabulary = self.decoder.width, self.decoder.vocabulary
        self.settings = read_settings(generation, self.vocabulary)
        composers = settings["composer_vocab_size"]
        check_integer("composer_vocab_size", composers, 1, len(self.settings.composers))
        self._composers = matrices.array("mel_conditioner.embedding.weight", composers, self.width)
        # Each composer has one row; transformers would count from the lowest number.
        if sorted(self.settings.composers.values()) != list(
            range(
                min(self.settings.composers.values()),
                min(self.settings.composers.values()) + composers,
            )
        ):
            raise ModelRefused("composer_to_feature_token does not number all composers")
        scaled = config.get("scale_decoder_outputs", settings["tie_word_embeddings"])
        if scaled not in (True, False):
            raise ModelRefused(f"scale_decoder_outputs is {scaled!r:.80}")
        self._ends = (ctypes.c_int32 * len(self.settings.ends))(*self.settings.ends)
        self._struct = ModelStruct(
            self.decoder.struct,
            matrices.matrix("lm_head.weight", self.vocabulary, self.width),
            self.width**-0.5 if scaled else 1.0,
            self.settings.start,
            self.settings.pad,
            len(self._ends),
            self._ends,
        )

    def encode(
        self,
        features: "NDArray[np.float32]",
        composer: str,
        pool: Pool | None = None,
        control: Control | None = None,
    ) -> "tuple[Status, NDArray[np.float32]]":
        """Return the encoder's hidden states for features `(rows, length, width)`.

        The composer's embedding comes before the features of each row. Raises `ValueError`.
        """
        if composer not in self.settings.composers:
            raise ValueError(f"{composer!r:.80} is none of {', '.join(self.settings.composers)}")
        features = self.encoder.check_states(features)
        first = min(self.settings.composers.values())
        row = self._composers[self.settings.composers[composer] - first]
        row = np.broadcast_to(row, (len(features), 1, self.width))
        return self.encoder.encode(np.concatenate([row, features], axis=1), pool, control)

    def generate(
        self,
        hidden: "NDArray[np.float32]",
        steps: int,
        seed: int,
        sampling: Sampling,
        pool: Pool | None = None,
        control: Control | None = None,
    ) -> tuple[Status, Steps]:
        """Generate up to `steps` tokens of each row for the encoder's hidden states.

        It ends when all rows have ended. `control.done` counts steps. Raises `ValueError`.
        """
        control = control or Control()
        cover, kept = self._cover(hidden, steps, seed, sampling)
        tokens = np.zeros((cover.rows, steps), np.int32)
        logits = self._logits(cover.rows, steps)
        status = library.load().he_pop2piano_generate(
            ctypes.byref(self._struct),
            pool,
            ctypes.byref(cover),
            ctypes.c_void_p(address(tokens)),
            ctypes.c_void_p(address(logits)),
            ctypes.byref(control.stop),
            ctypes.byref(control.done),
        )
        del kept
        count = control.done.value
        return Status(status), Steps(tokens[:, :count], logits[:, : kept_steps(count)])

    def replay(
        self,
        hidden: "NDArray[np.float32]",
        tokens: "NDArray[np.int32]",
        steps: int,
        seed: int,
        sampling: Sampling,
        pool: Pool | None = None,
        control: Control | None = None,
        block: int | None = None,
    ) -> "tuple[Status, Steps, Difference | None]":
        """Compute the steps of `tokens` `(rows, count)`, `block` at a time, and compare.

        The difference is the first token that is drawn otherwise, or the step where the tokens end
        or go on.

        `steps` is the limit with which they were generated. Raises `ValueError`.
        """
        control = control or Control()
        tokens = self.decoder.check_tokens(tokens)
        cover, kept = self._cover(hidden, steps, seed, sampling)
        rows, count = tokens.shape
        if rows != cover.rows or count > steps:
            raise ValueError(f"tokens of shape {tokens.shape}, not {cover.rows} rows of {steps}")
        block = min(count, block or max(1, REPLAY_POSITIONS // rows))
        logits = self._logits(rows, count)
        first = (ctypes.c_int64 * 2)()
        status = library.load().he_pop2piano_replay(
            ctypes.byref(self._struct),
            pool,
            ctypes.byref(cover),
            ctypes.c_int64(count),
            ctypes.c_int64(block),
            ctypes.c_void_p(address(tokens)),
            ctypes.c_void_p(address(logits)),
            first,
            ctypes.byref(control.stop),
            ctypes.byref(control.done),
        )
        del kept
        row, step = first
        difference = Difference(0, step, row) if status == Status.DIFFERENT else None
        return Status(status), Steps(tokens, logits), difference

    def _logits(self, rows: int, steps: int) -> "NDArray[np.float32]":
        return np.zeros((rows, kept_steps(steps), self.vocabulary), np.float32)

    def _cover(
        self, hidden: "NDArray[np.float32]", steps: int, seed: int, sampling: Sampling
    ) -> tuple[CoverStruct, object]:
        """Return the structure of what is generated, and what must live as long."""
        hidden = self.decoder.check_states(hidden)
        check_length(len(hidden), steps)
        if sampling.guidance != 1:
            raise ValueError(f"the engine cannot sample so: {sampling}")
        rule = sampling.rule()
        cover = CoverStruct(len(hidden), hidden.shape[1], steps, address(hidden), rule, seed)
        return cover, hidden


def read_settings(generation: Mapping[str, Any], vocabulary: int) -> Settings:
    """Return a model's settings of generation. Raises `ModelRefused`."""
    for name, value in generation.items():
        is_neutral = value is None or value in (False, 0, "", NEUTRAL.get(name))
        if name not in READ and not is_neutral and value != []:
            raise ModelRefused(f"generation_config.json: {name:.80} is {value!r:.80}")
    composers = generation.get("composer_to_feature_token")
    if not isinstance(composers, dict) or not composers:
        raise ModelRefused("generation_config.json has no composer_to_feature_token")
    for composer, number in composers.items():
        check_integer(f"composer_to_feature_token.{composer:.80}", number, 0, 2**31 - 1)
    ends = generation.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if len(ends) > MAX_ENDS:
        raise ModelRefused(f"eos_token_id has over {MAX_ENDS} tokens")
    for end in ends:
        check_integer("eos_token_id", end, 0, 2**31 - 1)
    start = generation.get("decoder_start_token_id")
    start = generation.get("bos_token_id") if start is None else start
    # Without a token that ends a row, none is padded.
    pad = generation.get("pad_token_id")
    pad = (ends[0] if ends else 0) if pad is None else pad
    return Settings(
        MappingProxyType(composers),
        check_integer("decoder_start_token_id", start, 0, vocabulary - 1),
        check_integer("pad_token_id", pad, 0, vocabulary - 1),
        tuple(ends),
        read_steps(generation),
        read_sampling(generation),
    )
