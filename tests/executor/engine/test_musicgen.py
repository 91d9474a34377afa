"""MusicGen's decoder against transformers, and against itself in every way to run it."""

import ctypes
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    StoppingCriteria,
    set_seed,
)

from executor.engine.library import Status
from executor.engine.matrices import Kind, Matrices
from executor.engine.musicgen import MusicgenDecoder
from executor.engine.pool import Control, Pool
from executor.engine.sampling import Sampling
from executor.errors import ModelRefused
from executor.job import Difference
from executor.models.folders import EMBEDDED, SHIPPED

STEPS = 70
SAMPLING = Sampling(True, 0.9, 50, 1.0, 2.0)


class Drawn(StoppingCriteria):  # type: ignore[misc]
    """Keeps the tokens as they are drawn, before the delay mask; never stops."""

    tokens: Any = None

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self.tokens = input_ids.clone()
        return torch.zeros(len(input_ids), dtype=torch.bool)


@functools.cache
def shipped() -> Any:
    model = MusicgenForConditionalGeneration.from_pretrained(
        SHIPPED / EMBEDDED, dtype=torch.float32, local_files_only=True
    )
    return model.eval()


def tensors_of(model: Any, prefix: str = "") -> dict[str, Any]:
    return {prefix + name: tensor.numpy() for name, tensor in model.state_dict().items()}


def decoder(model: Any, kind: Kind = Kind.FLOAT32) -> MusicgenDecoder:
    return MusicgenDecoder(model.config.decoder.to_dict(), Matrices(tensors_of(model), kind))


def prompt(ids: tuple[int, ...] = (5, 900, 17, 3, 1)) -> Any:
    model = shipped()
    with torch.inference_mode():
        hidden = model.text_encoder(input_ids=torch.tensor([ids])).last_hidden_state
        return model.enc_to_dec_proj(hidden)[0].numpy()


def expected_tokens(seed: int, steps: int, **arguments: Any) -> Any:
    drawn = Drawn()
    set_seed(seed)
    with torch.inference_mode():
        shipped().generate(
            input_ids=torch.tensor([[5, 900, 17, 3, 1]]),
            max_new_tokens=steps,
            stopping_criteria=[drawn],
            **arguments,
        )
    return drawn.tokens.numpy().T[1:]


def tiny(**changes: Any) -> Any:
    """A random decoder, with the name that its tensors have in a whole model."""
    config: dict[str, Any] = {
        "vocab_size": 30,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 40,
        "num_codebooks": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 30,
        "bos_token_id": 30,
        **changes,
    }
    torch.manual_seed(4)
    model = MusicgenForCausalLM(MusicgenDecoderConfig(**config)).eval()
    for parameter in model.parameters():  # larger than at the start, so that tokens differ
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def tiny_decoder(model: Any, kind: Kind = Kind.FLOAT32) -> MusicgenDecoder:
    tensors = tensors_of(model, "decoder.")
    return MusicgenDecoder(model.config.to_dict(), Matrices(tensors, kind))


def bits(array: Any) -> Any:
    return array.view(np.uint32)


@pytest.mark.parametrize(
    ("arguments", "sampling"),
    [
        ({}, SAMPLING),
        ({"guidance_scale": 1.0}, Sampling(True, 0.9, 50)),
        ({"do_sample": False}, Sampling(False, guidance=2.0)),
        ({"temperature": 1.5, "top_k": 0, "top_p": 0.8}, Sampling(True, 1.5, 0, 0.8, 2.0)),
    ],
)
def test_tokens_are_those_of_transformers(arguments: Mapping[str, Any], sampling: Sampling) -> None:
    status, steps = decoder(shipped()).generate(prompt(), STEPS, [7], sampling)
    assert status is Status.OK
    assert (steps.tokens[0] == expected_tokens(7, STEPS, **arguments)).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7, 8])
def test_short_songs_have_the_tokens_of_transformers(steps: int) -> None:
    """Below 2 * 4 - 2 tokens, transformers delays no codebook."""
    _, result = decoder(shipped()).generate(prompt(), steps, [7], SAMPLING)
    assert (result.tokens[0] == expected_tokens(7, steps)).all()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_codebooks": 8, "audio_channels": 2},
        {"hidden_size": 20, "num_attention_heads": 5, "ffn_dim": 13},
        {"hidden_size": 128, "num_attention_heads": 2, "num_codebooks": 1},
    ],
    ids=str,
)
def test_logits_are_those_of_transformers(
    each_library: ctypes.CDLL, changes: Mapping[str, Any]
) -> None:
    model = tiny(**changes)
    engine, steps = tiny_decoder(model), 40
    hidden = np.random.default_rng(2).standard_normal((6, engine.width)).astype(np.float32)
    _, result = engine.generate(hidden, steps, [3], Sampling())
    columns = np.stack([engine.column(result.tokens[0], step) for step in range(steps)])
    with torch.inference_mode():
        logits = model(
            input_ids=torch.from_numpy(columns.T.astype(np.int64)),
            encoder_hidden_states=torch.from_numpy(hidden)[None],
        ).logits
    expected = logits.view(engine.codebooks, steps, -1)[:, -1].numpy()
    assert np.abs(result.logits[0, -1] - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("kind", list(Kind))
def test_every_way_to_run_gives_the_same_bits(
    libraries: dict[str, ctypes.CDLL], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """Libraries, threads, sequences alone or together, steps one by one or in blocks."""
    steps, seeds, sampling = 64, [7, 8, 9], Sampling(True, 1.0, 0, 0.9, 3.0)
    engine = tiny_decoder(tiny(hidden_size=32, ffn_dim=64), kind)
    hidden = np.random.default_rng(2).standard_normal((6, engine.width)).astype(np.float32)
    _, together = engine.generate(hidden, steps, seeds, sampling)
    assert together.logits.shape == (3, 1, 4, 30)  # step 63 is the last one
    for library in libraries.values():
        monkeypatch.setattr("executor.engine.library.load", lambda library=library: library)
        with Pool(2) as pool:
            for number, seed in enumerate(seeds):
                _, alone = engine.generate(hidden, steps, [seed], sampling, pool)
                assert (alone.tokens[0] == together.tokens[number]).all()
                assert (bits(alone.logits[0]) == bits(together.logits[number])).all()
            for block in (1, 7, 1000):
                status, replayed, difference = engine.replay(
                    hidden, together.tokens, seeds, sampling, pool, block=block
                )
                assert (status, difference) == (Status.OK, None)
                assert (bits(replayed.logits) == bits(together.logits)).all()


def test_the_shipped_model_has_the_same_bits_in_all_libraries(
    libraries: dict[str, ctypes.CDLL], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, hidden = decoder(shipped()), prompt()
    _, expected = engine.generate(hidden, 10, [7], SAMPLING)
    for library in libraries.values():
        monkeypatch.setattr("executor.engine.library.load", lambda library=library: library)
        _, result = engine.generate(hidden, 10, [7], SAMPLING)
        assert (bits(result.logits) == bits(expected.logits)).all()
        assert (result.tokens == expected.tokens).all()


def test_logits_of_every_sixty_fourth_step_and_of_the_last_are_kept() -> None:
    _, steps = decoder(shipped()).generate(prompt(), STEPS, [7], SAMPLING)
    _, shorter = decoder(shipped()).generate(prompt(), 64, [7], SAMPLING)
    assert steps.logits.shape == (1, 2, 4, 512)
    assert shorter.logits.shape == (1, 1, 4, 512)
    # Tokens near the end are masked, so only the steps before are those of a shorter song.
    assert (steps.tokens[0, :60] == shorter.tokens[0, :60]).all()


@pytest.mark.parametrize("step", [0, 1, 35, STEPS - 1])
def test_replay_names_the_first_token_that_differs(step: int) -> None:
    engine, hidden = decoder(shipped()), prompt()
    _, steps = engine.generate(hidden, STEPS, [7, 8], SAMPLING)
    forged = steps.tokens.copy()
    forged[1, step, 2] = (forged[1, step, 2] + 1) % engine.vocabulary
    status, _, difference = engine.replay(hidden, forged, [7, 8], SAMPLING)
    assert (status, difference) == (Status.DIFFERENT, Difference(1, step, 2))


CHEATS: dict[str, Any] = {
    "another seed": {"seed": 8},
    "another prompt": {"ids": (5, 901, 17, 3, 1)},
    "another top_k": {"sampling": Sampling(True, 0.9, 5, 1.0, 2.0)},
    "another temperature": {"sampling": Sampling(True, 0.5, 50, 1.0, 2.0)},
    "no guidance": {"sampling": Sampling(True, 0.9, 50)},
    "4 bits": {"kind": Kind.INT4},
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_replay_finds_what_was_generated_otherwise(cheat: str) -> None:
    asked = {"seed": 7, "ids": (5, 900, 17, 3, 1), "sampling": SAMPLING, "kind": Kind.FLOAT32}
    done = {**asked, **CHEATS[cheat]}
    honest, hidden = decoder(shipped()), prompt()
    _, steps = decoder(shipped(), done["kind"]).generate(
        prompt(done["ids"]), STEPS, [done["seed"]], done["sampling"]
    )
    status, _, difference = honest.replay(hidden, steps.tokens, [7], SAMPLING)
    _, right = honest.generate(hidden, STEPS, [7], SAMPLING)
    assert status is Status.DIFFERENT
    assert difference is not None
    # Up to the first difference the tokens are those that the honest engine draws.
    wrong = np.argwhere(right.tokens[0] != steps.tokens[0])
    assert (difference.step, difference.column) == tuple(wrong[0])


@pytest.mark.parametrize("splice", ["shifted", "spliced", "repeated"])
def test_replay_finds_moved_tokens(splice: str) -> None:
    engine, hidden = decoder(shipped()), prompt()
    _, steps = engine.generate(hidden, STEPS, [7, 8], SAMPLING)
    song, other = steps.tokens[0], steps.tokens[1]
    forged = {
        "shifted": np.concatenate([song[1:], song[:1]]),
        "spliced": np.concatenate([song[:40], other[40:]]),
        "repeated": np.concatenate([song[:40], song[10:40]]),
    }[splice]
    status, _, difference = engine.replay(hidden, forged[None], [7], SAMPLING)
    assert status is Status.DIFFERENT
    assert difference is not None
    assert difference.step == (0 if splice == "shifted" else 40)


def test_a_stopped_call_ends_before_its_next_step() -> None:
    control = Control()
    control.stop.value = 1
    engine, hidden = decoder(shipped()), prompt()
    status, _ = engine.generate(hidden, STEPS, [7], SAMPLING, control=control)
    assert (status, control.done.value) == (Status.STOPPED, 0)
    tokens = np.zeros((1, STEPS, 4), np.int32)
    status, _, _ = engine.replay(hidden, tokens, [7], SAMPLING, control=control)
    assert status is Status.STOPPED


def test_steps_are_counted() -> None:
    control = Control()
    decoder(shipped()).generate(prompt(), 9, [7], SAMPLING, control=control)
    assert control.done.value == 9


def test_logits_that_are_not_finite_end_the_song(each_library: ctypes.CDLL) -> None:
    model = tiny()
    with torch.no_grad():
        model.lm_heads[1].weight[3] = 3e38
    engine = tiny_decoder(model)
    hidden = np.ones((2, engine.width), np.float32)
    assert engine.generate(hidden, 5, [1], Sampling())[0] is Status.NOT_FINITE
    tokens = np.zeros((1, 5, 4), np.int32)
    assert engine.replay(hidden, tokens, [1], Sampling())[0] is Status.NOT_FINITE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"num_codebooks": 17}, "num_codebooks is 17"),
        ({"num_codebooks": 3, "audio_channels": 2}, "num_codebooks is 3"),
        ({"hidden_size": 25}, "hidden_size is 25"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"vocab_size": "30"}, "vocab_size is '30'"),
        ({"ffn_dim": 41}, r"fc1.weight has the shape 40x24; the configuration says 41x24"),
        ({"num_hidden_layers": 3}, "the weights have no decoder.model.decoder.layers.2"),
    ],
)
def test_what_the_engine_does_not_compute_is_refused(
    changes: Mapping[str, Any], words: str
) -> None:
    model = tiny()
    matrices = Matrices(tensors_of(model, "decoder."), Kind.FLOAT32)
    with pytest.raises(ModelRefused, match=words):
        MusicgenDecoder({**model.config.to_dict(), **changes}, matrices)


def test_values_out_of_range_are_refused_before_the_library_sees_them() -> None:
    engine = tiny_decoder(tiny())
    hidden = np.ones((2, engine.width), np.float32)
    tokens = np.zeros((1, 5, 4), np.int32)
    with pytest.raises(ValueError, match="prompt of shape"):
        engine.generate(hidden[:, 1:], 5, [1], Sampling())
    for steps in (0, 65):
        with pytest.raises(ValueError, match="the model has 64 positions"):
            engine.generate(hidden, steps, [1], Sampling())
    for token in (-1, 30):
        with pytest.raises(ValueError, match=r"not in 0 \.\. 29"):
            engine.replay(hidden, np.full_like(tokens, token), [1], Sampling())
    with pytest.raises(ValueError, match="tokens of shape"):
        engine.replay(hidden, tokens[..., 1:], [1], Sampling())
