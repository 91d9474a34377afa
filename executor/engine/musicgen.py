"""MusicGen's decoder: from the hidden states of a prompt to tokens, and back to check them."""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from executor.engine import library
from executor.engine.library import (
    MAX_CODEBOOKS,
    MAX_POSITIONS,
    Status,
    address,
    kept_steps,
)
from executor.engine.matrices import Matrices, MatrixStruct
from executor.engine.pool import Control, Pool
from executor.engine.sampling import Sampling, SamplingStruct
from executor.errors import ModelRefused
from executor.job import Difference
from executor.models.json_files import check_integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

DECODER = "decoder.model.decoder"
# Positions of a pass of replay: their rows and the weights of a tile stay in the caches.
REPLAY_BLOCK = 96
# Songs of one call, for which the C code has room.
MAX_SONGS = 8
# The decoder's sizes, and bounds far above any model's, so that products of sizes fit into 64 bits.
SIZES = (
    *((name, 2**20) for name in ("hidden_size", "num_attention_heads", "ffn_dim", "vocab_size")),
    ("num_hidden_layers", 256),
    ("num_codebooks", MAX_CODEBOOKS),
    ("max_position_embeddings", 2**31 - 1),
)
# Settings of the decoder that this code computes with one value only.
FIXED = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": False}


class LayerStruct(ctypes.Structure):
    """`he_musicgen_layer`."""

    _fields_ = (
        *((name, MatrixStruct) for name in ("q", "k", "v", "out")),
        *((name, MatrixStruct) for name in ("cross_q", "cross_k", "cross_v", "cross_out")),
        *((name, MatrixStruct) for name in ("up", "down")),
        ("norm", ctypes.c_void_p * 6),
    )


class ModelStruct(ctypes.Structure):
    """`he_musicgen`."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("layers", "width", "heads", "inner")),
        *((name, ctypes.c_int32) for name in ("vocabulary", "codebooks", "delays", "prefixed")),
        ("layer", ctypes.POINTER(LayerStruct)),
        ("head", ctypes.POINTER(MatrixStruct)),
        ("embedding", ctypes.POINTER(MatrixStruct)),
        ("last_norm", ctypes.c_void_p * 2),
    )


class SongStruct(ctypes.Structure):
    """`he_song`."""

    _fields_ = (
        ("sequences", ctypes.c_int32),
        ("steps", ctypes.c_int32),
        ("guided", ctypes.c_int32),
        ("guidance", ctypes.c_float),
        ("sampling", SamplingStruct),
        ("seeds", ctypes.POINTER(ctypes.c_uint64)),
        ("prompt", ctypes.c_void_p),
        ("prompt_length", ctypes.c_int32),
        ("status", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("tokens", "logits", "stop", "done")),
    )


@dataclass(frozen=True, slots=True)
class Song:
    """What is to be generated: `steps` tokens of each seed, for a prompt's hidden states.

    `prompt` is `(length, width)`. `control` stops this song only, and counts its steps.
    """

    prompt: "NDArray[np.float32]"
    steps: int
    seeds: Sequence[int]
    sampling: Sampling
    control: Control = field(default_factory=Control)


@dataclass(frozen=True, slots=True)
class Steps:
    """What was generated.

    `tokens` are `(sequences, steps, codebooks)`, as drawn, before the delay mask. `logits` are
    those of the kept steps (specification 8): `(sequences, kept, codebooks, vocabulary)`.
    """

    tokens: "NDArray[np.int32]"
    logits: "NDArray[np.float32]"


class MusicgenDecoder:
    """The decoder of a MusicGen model, on the engine's kernels."""

    def __init__(
        self,
        config: Mapping[str, Any],
        matrices: Matrices,
        encoder_width: int | None = None,
        chroma: tuple[int, int] | None = None,
    ) -> None:
        """Take the decoder's configuration and the model's weights.

        `encoder_width` is that of the text encoder's hidden states; if it is another than the
        decoder's, the model has a projection. `chroma` is a melody model's: the notes of an octave,
        and how many positions of them come before the prompt. Raises `ModelRefused`.
        """
        self._matrices = matrices
        sizes = {
            name: check_integer(f"decoder.{name}", config.get(name), 1, most)
            for name, most in SIZES
        }
        width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
        layers, inner = sizes["num_hidden_layers"], sizes["ffn_dim"]
        self.vocabulary, self.codebooks = sizes["vocab_size"], sizes["num_codebooks"]
        stereo = config.get("audio_channels", 1) == 2
        for name, value in FIXED.items():
            if config.get(name, value) != value:
                raise ModelRefused(f"decoder.{name} is {config[name]!r}; the engine has {value!r}")
        if self.codebooks % (1 + stereo):
            raise ModelRefused(f"decoder.num_codebooks is {self.codebooks}")
        if width % heads or width < 4:
            raise ModelRefused(f"decoder.hidden_size is {width}, for {heads} heads")
        self.width, self.delays = width, self.codebooks // (1 + stereo)
        self.max_steps = min(sizes["max_position_embeddings"], MAX_POSITIONS)
        self._projection: MatrixStruct | None = None
        self._projection_bias = np.zeros(width, np.float32)
        if encoder_width not in (None, width):
            self._projection = matrices.matrix("enc_to_dec_proj.weight", width, encoder_width)
            self._projection_bias = matrices.array("enc_to_dec_proj.bias", width)
        self._chroma = np.zeros((0, width), np.float32)
        self._melody = chroma is not None
        if chroma is not None:
            self._chroma = self._read_chroma(*chroma)
        self._layers = (LayerStruct * layers)(*(self._layer(i, inner) for i in range(layers)))
        self._heads = (MatrixStruct * self.codebooks)(
            *(
                matrices.matrix(f"decoder.lm_heads.{k}.weight", self.vocabulary, width)
                for k in range(self.codebooks)
            )
        )
        self._embeddings = (MatrixStruct * self.codebooks)(
            *(
                matrices.table(f"{DECODER}.embed_tokens.{k}.weight", self.vocabulary + 1, width)
                for k in range(self.codebooks)
            )
        )
        self._struct = ModelStruct(
            layers,
            width,
            heads,
            inner,
            self.vocabulary,
            self.codebooks,
            self.delays,
            self._melody,
            self._layers,
            self._heads,
            self._embeddings,
            (ctypes.c_void_p * 2)(*self._norm("layer_norm")),
        )

    def _read_chroma(self, notes: int, length: int) -> "NDArray[np.float32]":
        """Return what a melody model reads where there is no melody: `length` times one row.

        It is the first of the notes alone, in the decoder's width.
        """
        if notes == self.width:
            row = np.eye(1, notes, dtype=np.float32)
        else:
            weight = self._matrices.array("audio_enc_to_dec_proj.weight", self.width, notes)
            row = weight[None, :, 0] + self._matrices.array(
                "audio_enc_to_dec_proj.bias", self.width
            )
        return np.repeat(row, length, axis=0)

    def _norm(self, name: str) -> tuple[int, int]:
        weight, bias = (f"{DECODER}.{name}.{part}" for part in ("weight", "bias"))
        return self._matrices.vector(weight, self.width), self._matrices.vector(bias, self.width)

    def _layer(self, number: int, inner: int) -> LayerStruct:
        at, width = f"layers.{number}", self.width

        def square(name: str) -> MatrixStruct:
            return self._matrices.matrix(f"{DECODER}.{at}.{name}.weight", width, width)

        def attention(name: str) -> list[MatrixStruct]:
            return [square(f"{name}.{part}_proj") for part in ("q", "k", "v", "out")]

        # A melody model has no attention to the prompt.
        cross = [MatrixStruct()] * 4 if self._melody else attention("encoder_attn")
        norms = (
            *self._norm(f"{at}.self_attn_layer_norm"),
            *((0, 0) if self._melody else self._norm(f"{at}.encoder_attn_layer_norm")),
            *self._norm(f"{at}.final_layer_norm"),
        )
        return LayerStruct(
            *attention("self_attn"),
            *cross,
            self._matrices.matrix(f"{DECODER}.{at}.fc1.weight", inner, width),
            self._matrices.matrix(f"{DECODER}.{at}.fc2.weight", width, inner),
            (ctypes.c_void_p * 6)(*norms),
        )

    def generate(
        self,
        prompt: "NDArray[np.float32]",
        steps: int,
        seeds: Sequence[int],
        sampling: Sampling,
        pool: Pool | None = None,
        control: Control | None = None,
    ) -> tuple[Status, Steps]:
        """Generate `steps` tokens of each seed for a prompt's hidden states `(length, width)`."""
        song = Song(prompt, steps, seeds, sampling, control or Control())
        ((_, status, result),) = self.generate_together([song], pool)
        return status, result

    def generate_together(
        self, songs: Sequence[Song], pool: Pool | None = None
    ) -> Iterator[tuple[int, Status, Steps]]:
        """Generate songs together, with the bits that each has alone.

        Yields each song when it has ended: its place, its status, and its tokens. The others go on
        with the next one that is asked for. Raises `ValueError` for more than `MAX_SONGS`.
        """
        if len(songs) > MAX_SONGS:
            raise ValueError(f"{len(songs)} songs, at most {MAX_SONGS}")
        if not songs:
            return
        structs, results, kept = [], [], []
        for song in songs:
            struct, owners = self._song(song.prompt, song.steps, song.seeds, song.sampling)
            tokens = np.zeros((len(song.seeds), song.steps, self.codebooks), np.int32)
            results.append(Steps(tokens, self._logits(len(song.seeds), song.steps)))
            structs.append(bound(struct, results[-1], song.control))
            kept.append(owners)
        array = (SongStruct * len(songs))(*structs)
        engine = library.load()
        engine.he_musicgen_begin.restype = ctypes.c_void_p
        begun = engine.he_musicgen_begin(
            ctypes.byref(self._struct), pool, array, ctypes.c_int32(len(songs))
        )
        if begun is None:
            yield from ((place, Status.NO_MEMORY, steps) for place, steps in enumerate(results))
            return
        generation, going = ctypes.c_void_p(begun), [*range(len(songs))]
        try:
            while going:
                engine.he_musicgen_continue(generation)
                ended = [place for place in going if array[place].status != Status.RUNNING]
                going = [place for place in going if place not in ended]
                yield from ((place, Status(array[place].status), results[place]) for place in ended)
        finally:
            engine.he_musicgen_end(generation)
            del kept

    def replay(
        self,
        prompt: "NDArray[np.float32]",
        tokens: "NDArray[np.int32]",
        seeds: Sequence[int],
        sampling: Sampling,
        pool: Pool | None = None,
        control: Control | None = None,
        block: int = REPLAY_BLOCK,
    ) -> "tuple[Status, Steps, Difference | None]":
        """Compute all steps of `tokens` `(sequences, steps, codebooks)` in one pass and compare."""
        control = control or Control()
        steps = tokens.shape[1]
        if tokens.shape != (len(seeds), steps, self.codebooks):
            raise ValueError(f"tokens of shape {tokens.shape}")
        if ((tokens < 0) | (tokens >= self.vocabulary)).any():
            raise ValueError(f"a token is not in 0 .. {self.vocabulary - 1}")
        tokens = np.ascontiguousarray(tokens, np.int32)
        song, kept = self._song(prompt, steps, seeds, sampling)
        result = Steps(tokens, self._logits(len(seeds), steps))
        first = (ctypes.c_int32 * 3)()
        status = library.load().he_musicgen_replay(
            ctypes.byref(self._struct),
            pool,
            ctypes.byref(bound(song, result, control)),
            ctypes.c_int32(min(block, steps)),
            first,
        )
        del kept
        difference = Difference(*first) if status == Status.DIFFERENT else None
        return Status(status), result, difference

    def cache_bytes(self, prompt_length: int, steps: int, *, guided: bool) -> tuple[int, int]:
        """Return the bytes of a song's keys and values: shared by its sequences, and of each."""
        position = len(self._layers) * 2 * self.width * 4
        length = len(self._chroma) + prompt_length
        before, shared = (length, 0) if self._melody else (0, length)
        return position * shared, position * (before + steps) * (1 + guided)

    def has_room(self, prompt_length: int, steps: int) -> bool:
        """Return whether a decoder that reads the prompt before the steps has the positions."""
        before = len(self._chroma) + prompt_length if self._melody else 0
        return before + steps <= MAX_POSITIONS

    def codes(self, tokens: "NDArray[np.int32]") -> "NDArray[np.int32]":
        """Return the codes `(codebooks, frames)` of a sequence's tokens `(steps, codebooks)`.

        A codebook's first token is as many steps late as its delay; its last ones are masked.
        """
        steps = len(tokens)
        if steps < 2 * self.delays - 2:  # transformers delays nothing in shorter ones
            return np.ascontiguousarray(tokens.T)
        frames = steps - self.delays + 1
        late = [k // (self.codebooks // self.delays) for k in range(self.codebooks)]
        return np.stack([tokens[first : first + frames, k] for k, first in enumerate(late)])

    def project(
        self, hidden: "NDArray[np.float32]", pool: Pool | None = None
    ) -> "NDArray[np.float32]":
        """Return a text encoder's hidden states `(length, its width)` in this decoder's width."""
        if self._projection is None:
            return hidden
        hidden = np.ascontiguousarray(hidden, np.float32)
        if hidden.ndim != 2 or hidden.shape[1] != self._projection.inputs:
            raise ValueError(f"hidden states of shape {hidden.shape}")
        prompt = np.empty((len(hidden), self.width), np.float32)
        status = library.load().he_product(
            pool,
            ctypes.byref(self._projection),
            ctypes.c_void_p(address(self._projection_bias)),
            ctypes.c_void_p(address(hidden)),
            ctypes.c_void_p(address(prompt)),
            ctypes.c_int64(len(hidden)),
        )
        if status:
            raise MemoryError("the engine has too little memory")
        return prompt

    def column(self, tokens: "NDArray[np.int32]", step: int) -> "NDArray[np.int32]":
        """Return what the decoder reads at a step of `tokens` `(steps, codebooks)`: delayed."""
        tokens = np.ascontiguousarray(tokens, np.int32)
        column = np.empty(self.codebooks, np.int32)
        library.load().he_musicgen_column(
            ctypes.byref(self._struct),
            ctypes.c_int32(len(tokens)),
            ctypes.c_int32(step),
            ctypes.c_void_p(address(tokens)),
            ctypes.c_void_p(address(column)),
        )
        return column

    def _logits(self, sequences: int, steps: int) -> "NDArray[np.float32]":
        shape = (sequences, kept_steps(steps), self.codebooks, self.vocabulary)
        return np.zeros(shape, np.float32)

    def _song(
        self,
        prompt: "NDArray[np.float32]",
        steps: int,
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> tuple[SongStruct, tuple[object, ...]]:
        """Return the structure of a song, and what must live as long."""
        if prompt.ndim != 2 or prompt.shape[1] != self.width or len(prompt) > MAX_POSITIONS:
            raise ValueError(f"a prompt of shape {prompt.shape}")
        if not 1 <= steps <= self.max_steps:
            raise ValueError(f"{steps} steps; the model has {self.max_steps} positions")
        if not seeds:
            raise ValueError("no seeds")
        guided = sampling.guidance > 1
        if not self.has_room(len(prompt), steps):
            raise ValueError(f"a prompt of {len(prompt)} positions before {steps} steps")
        length = len(self._chroma) + len(prompt)
        if self._melody:
            # The side without the prompt reads zeros there.
            prompts = (prompt, np.zeros_like(prompt))[: 1 + guided]
            prompt = np.concatenate([part for side in prompts for part in (self._chroma, side)])
        prompt = np.ascontiguousarray(prompt, np.float32)
        numbers = (ctypes.c_uint64 * len(seeds))(*seeds)
        song = SongStruct(
            len(seeds),
            steps,
            guided,
            sampling.guidance,
            sampling.rule(),
            numbers,
            address(prompt),
            length,
        )
        return song, (prompt, numbers)


def bound(song: SongStruct, steps: Steps, control: Control) -> SongStruct:
    """Return a song's structure with where its tokens and logits lie, and its control.

    Whoever uses it keeps them alive.
    """
    song.tokens, song.logits = address(steps.tokens), address(steps.logits)
    song.stop, song.done = ctypes.addressof(control.stop), ctypes.addressof(control.done)
    return song
