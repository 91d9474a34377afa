"""Pop2Piano's tokens against transformers, and against itself in every way to run it."""

import ctypes
import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    Pop2PianoConfig,
    Pop2PianoForConditionalGeneration,
    set_seed,
)

from executor.engine import library
from executor.engine.library import Status
from executor.engine.matrices import Kind, Matrices
from executor.engine.pool import Control, Pool
from executor.engine.pop2piano import Pop2Piano, Steps, read_settings
from executor.engine.sampling import Sampling
from executor.errors import ModelRefused
from executor.job import Difference
from executor.models.folders import SHIPPED
from executor.models.weights import Weights

FOLDER = SHIPPED / "helium" / "embedded-pop2piano"
TOLERANCE = 4e-6  # of the largest number
GREEDY = Sampling(False)
WILD = Sampling(True, 1.5, 40, 0.9)
ROWS, LENGTH, STEPS = 5, 11, 70
# No row of the tiny model ends by a greedy choice before its last step.
GENERATION: Mapping[str, Any] = {
    "composer_to_feature_token": {"a": 70, "b": 71, "c": 72},
    "decoder_start_token_id": 0,
    "eos_token_id": [1, 5],
    "pad_token_id": 2,
    "max_length": STEPS + 1,
}
TINY: Mapping[str, Any] = {
    "vocab_size": 60,
    "composer_vocab_size": 3,
    "d_model": 40,
    "d_kv": 12,
    "d_ff": 52,
    "num_layers": 3,
    "num_decoder_layers": 2,  # with more than the encoder has, transformers fails
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "tie_word_embeddings": False,
}


@functools.cache
def shipped() -> Any:
    model = Pop2PianoForConditionalGeneration.from_pretrained(
        FOLDER, dtype=torch.float32, local_files_only=True
    )
    return model.eval()


def shipped_piano(kind: Kind = Kind.FLOAT32) -> Pop2Piano:
    config, generation = (
        json.loads((FOLDER / name).read_text())
        for name in ("config.json", "generation_config.json")
    )
    weights = Weights(FOLDER)
    piano = Pop2Piano(config, generation, Matrices(weights, kind))
    weights.refuse_unread()
    return piano


def tiny(**changes: Any) -> Any:
    torch.manual_seed(2)
    model = Pop2PianoForConditionalGeneration(Pop2PianoConfig(**{**TINY, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config = GenerationConfig(**GENERATION)
    return model


def tensors_of(model: Any) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def tiny_piano(model: Any, kind: Kind = Kind.FLOAT32, **settings: Any) -> Pop2Piano:
    generation = {**GENERATION, **settings}
    return Pop2Piano(model.config.to_dict(), generation, Matrices(tensors_of(model), kind))


def features(width: int, rows: int = ROWS) -> Any:
    generator = np.random.default_rng(width)
    return generator.standard_normal((rows, LENGTH, width)).astype(np.float32)


def hidden_states(piano: Pop2Piano, composer: str) -> Any:
    status, hidden = piano.encode(features(piano.width), composer)
    assert status is Status.OK
    return hidden


def generate(piano: Pop2Piano, steps: int = STEPS, sampling: Sampling = WILD) -> Steps:
    composer = next(iter(piano.settings.composers))
    status, result = piano.generate(hidden_states(piano, composer), steps, 3, sampling)
    assert status is Status.OK
    return result


def expected_tokens(model: Any, composer: str, **arguments: Any) -> Any:
    set_seed(3)
    return model.generate(
        input_features=torch.from_numpy(features(model.config.d_model)),
        composer=composer,
        generation_config=GenerationConfig(**{**model.generation_config.to_dict(), **arguments}),
    ).numpy()


def expected_logits(model: Any, composer: str, tokens: Any) -> Any:
    """Return the logits of all steps of `tokens`, which begin with the start token."""
    with torch.inference_mode():
        embeddings, _ = model.get_mel_conditioner_outputs(
            torch.from_numpy(features(model.config.d_model)), composer, model.generation_config
        )
        result = model(inputs_embeds=embeddings, decoder_input_ids=torch.from_numpy(tokens[:, :-1]))
    return result.logits.numpy()


def last_steps(tokens: Any, ends: tuple[int, ...], block: int) -> Any:
    """Return each row's last step of a block of 64 that it has not ended before."""
    is_end = np.isin(tokens, ends)
    end = np.where(is_end.any(1), is_end.argmax(1), tokens.shape[1] - 1)
    return np.minimum(end, block * 64 + 63)


def bits(array: Any) -> Any:
    return array.view(np.uint32)


@pytest.mark.parametrize(
    ("arguments", "sampling"),
    [
        ({}, GREEDY),
        ({"do_sample": True, "top_k": 0}, Sampling(True)),
        ({"do_sample": True, "temperature": 1.5, "top_k": 40, "top_p": 0.9}, WILD),
    ],
    ids=("greedy", "plain", "wild"),
)
def test_tokens_of_the_shipped_model_are_those_of_transformers(
    arguments: Mapping[str, Any], sampling: Sampling
) -> None:
    piano = shipped_piano()
    hidden = hidden_states(piano, "composer2")
    _, result = piano.generate(hidden, piano.settings.steps, 3, sampling)
    expected = expected_tokens(shipped(), "composer2", **arguments)
    assert (result.tokens == expected[:, 1:]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"dense_act_fn": "gelu_new", "feed_forward_proj": "relu"},
        {"d_model": 37, "d_kv": 5, "d_ff": 9, "num_decoder_layers": 1},
        {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    ],
    ids=str,
)
@pytest.mark.parametrize("sampling", [GREEDY, WILD], ids=("greedy", "wild"))
def test_tokens_and_logits_are_those_of_transformers(
    changes: Mapping[str, Any], sampling: Sampling
) -> None:
    model = tiny(**changes)
    piano = tiny_piano(model)
    arguments: dict[str, Any] = {"do_sample": sampling.sample}
    if sampling.sample:
        arguments |= {"temperature": 1.5, "top_k": 40, "top_p": 0.9}
    expected = expected_tokens(model, "b", **arguments)
    _, result = piano.generate(hidden_states(piano, "b"), STEPS, 3, sampling)
    assert (result.tokens == expected[:, 1:]).all()
    logits = expected_logits(model, "b", expected)
    largest = np.abs(logits).max()
    rows = np.arange(ROWS)
    for block in range(result.logits.shape[1]):
        last = last_steps(result.tokens, piano.settings.ends, block)
        alive = last >= 64 * block
        error = np.abs(result.logits[:, block] - logits[rows, last])[alive]
        assert error.max() < TOLERANCE * largest
        assert not result.logits[~alive, block].any()


def test_hidden_states_are_those_of_transformers(each_library: ctypes.CDLL) -> None:
    hidden = hidden_states(shipped_piano(), "composer3")
    with torch.inference_mode():
        embeddings, _ = shipped().get_mel_conditioner_outputs(
            torch.from_numpy(features(192)), "composer3", shipped().generation_config
        )
        expected = shipped().encoder(inputs_embeds=embeddings).last_hidden_state.numpy()
    assert np.abs(hidden - expected).max() < TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("kind", list(Kind))
def test_every_way_to_run_gives_the_same_bits(
    libraries: dict[str, ctypes.CDLL], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    changes = {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 96}
    piano = tiny_piano(tiny(**changes), kind)
    together = generate(piano)
    hidden = hidden_states(piano, "a")
    for loaded in libraries.values():
        monkeypatch.setattr(library, "load", lambda loaded=loaded: loaded)
        with Pool(2) as pool:
            for threads in (None, pool):
                assert (bits(piano.encode(features(64), "a", threads)[1]) == bits(hidden)).all()
                _, again = piano.generate(hidden, STEPS, 3, WILD, threads)
                assert (again.tokens == together.tokens).all()
                assert (bits(again.logits) == bits(together.logits)).all()
            for block in (None, 1, 7, 1000):
                status, replayed, difference = piano.replay(
                    hidden, together.tokens, STEPS, 3, WILD, pool if block else None, block=block
                )
                assert (status, difference) == (Status.OK, None)
                assert (bits(replayed.logits) == bits(together.logits)).all()


def test_a_row_alone_gives_the_bits_that_it_gives_beside_others() -> None:
    piano = tiny_piano(tiny())
    hidden = hidden_states(piano, "a")
    _, together = piano.generate(hidden, STEPS, 3, GREEDY)
    for row in range(ROWS):
        _, alone = piano.generate(hidden[row : row + 1], STEPS, 3, GREEDY)
        steps = alone.tokens.shape[1]
        assert (alone.tokens[0] == together.tokens[row, :steps]).all()
        assert (together.tokens[row, steps:] == piano.settings.pad).all()
        blocks = alone.logits.shape[1]
        assert (bits(alone.logits[0]) == bits(together.logits[row, :blocks])).all()


def test_rows_that_have_ended_get_padding_until_all_have() -> None:
    result = generate(tiny_piano(tiny()), 16_000 // ROWS)
    is_end = np.isin(result.tokens, GENERATION["eos_token_id"])
    assert is_end.any(1).all()
    ends = is_end.argmax(1)
    assert result.tokens.shape[1] == ends.max() + 1
    assert len(set(ends.tolist())) > 1
    for row, end in zip(result.tokens, ends, strict=True):
        assert (row[end + 1 :] == GENERATION["pad_token_id"]).all()


def test_a_model_without_an_end_generates_all_steps() -> None:
    piano = tiny_piano(tiny(), eos_token_id=None)
    assert generate(piano, 130).tokens.shape == (ROWS, 130)
    assert generate(piano, 130).logits.shape == (ROWS, 3, 60)
    assert generate(piano, 1).tokens.shape == (ROWS, 1)


@pytest.mark.parametrize("step", [0, 1, 8])
def test_replay_names_the_first_token_that_differs(step: int) -> None:
    piano = tiny_piano(tiny(), eos_token_id=None)
    hidden = hidden_states(piano, "a")
    forged = generate(piano).tokens.copy()
    forged[3, step] = (forged[3, step] + 1) % 60
    status, _, difference = piano.replay(hidden, forged, STEPS, 3, WILD)
    assert (status, difference) == (Status.DIFFERENT, Difference(0, step, 3))


def test_replay_names_a_song_that_is_too_short_or_too_long() -> None:
    piano = tiny_piano(tiny())
    hidden, tokens = hidden_states(piano, "a"), generate(piano, 2_000).tokens
    steps = tokens.shape[1]
    last = int((tokens[:, -1] != GENERATION["pad_token_id"]).argmax())
    status, _, difference = piano.replay(hidden, tokens[:, :-1], 2_000, 3, WILD)
    assert (status, difference) == (Status.DIFFERENT, Difference(0, steps - 1, last))
    longer = np.pad(tokens, ((0, 0), (0, 2)), constant_values=GENERATION["pad_token_id"])
    for block in (1, 16, 5_000):
        status, _, difference = piano.replay(hidden, longer, 2_000, 3, WILD, block=block)
        assert (status, difference) == (Status.DIFFERENT, Difference(0, steps, 0))


@pytest.mark.parametrize("cheat", ["seed", "sampling", "composer", "features", "4 bits"])
def test_replay_finds_what_was_generated_otherwise(cheat: str) -> None:
    changes = {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 96}
    model = tiny(**changes)
    honest = tiny_piano(model, eos_token_id=None)
    other = tiny_piano(model, Kind.INT4, eos_token_id=None) if cheat == "4 bits" else honest
    inputs = features(64) * (1.5 if cheat == "features" else 1)
    _, hidden = other.encode(inputs, "b" if cheat == "composer" else "a")
    sampling = Sampling(True, 1.5, 4, 0.9) if cheat == "sampling" else WILD
    _, forged = other.generate(hidden, STEPS, 4 if cheat == "seed" else 3, sampling)
    _, right = honest.generate(hidden_states(honest, "a"), STEPS, 3, WILD)
    status, _, difference = honest.replay(hidden_states(honest, "a"), forged.tokens, STEPS, 3, WILD)
    assert status is Status.DIFFERENT
    assert difference is not None
    # Steps come before rows.
    step, row = np.argwhere(right.tokens.T != forged.tokens.T)[0]
    assert difference == Difference(0, step, row)


def test_a_stopped_call_ends_before_its_next_step() -> None:
    control = Control()
    control.stop.value = 1
    piano = tiny_piano(tiny())
    hidden = hidden_states(piano, "a")
    status, result = piano.generate(hidden, STEPS, 3, WILD, control=control)
    assert (status, result.tokens.shape, control.done.value) == (Status.STOPPED, (ROWS, 0), 0)
    tokens = np.zeros((ROWS, STEPS), np.int32)
    assert piano.replay(hidden, tokens, STEPS, 3, WILD, control=control)[0] is Status.STOPPED


def test_steps_are_counted() -> None:
    control = Control()
    piano = tiny_piano(tiny(), eos_token_id=None)
    piano.generate(hidden_states(piano, "a"), 9, 3, WILD, control=control)
    assert control.done.value == 9


def test_logits_that_are_not_finite_end_the_song(each_library: ctypes.CDLL) -> None:
    model = tiny()
    with torch.no_grad():
        model.decoder.final_layer_norm.weight.fill_(1e4)
        model.lm_head.weight[3] = 3e38
    piano = tiny_piano(model)
    hidden = hidden_states(piano, "a")
    assert piano.generate(hidden, STEPS, 3, WILD)[0] is Status.NOT_FINITE
    tokens = np.zeros((ROWS, 3), np.int32)
    assert piano.replay(hidden, tokens, STEPS, 3, WILD)[0] is Status.NOT_FINITE


def test_tensors_of_another_model_are_refused() -> None:
    model = tiny()
    tensors = tensors_of(model)
    del tensors["lm_head.weight"]
    with pytest.raises(ModelRefused, match=r"the weights have no lm_head\.weight"):
        Pop2Piano(model.config.to_dict(), GENERATION, Matrices(tensors, Kind.FLOAT32))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "t5"}, "the model is 't5', not 'pop2piano'"),
        ({"num_decoder_layers": 3}, r"the weights have no decoder\.block\.2\."),
        ({"num_decoder_layers": 0}, "num_decoder_layers is 0"),
        ({"scale_decoder_outputs": 2}, "scale_decoder_outputs is 2"),
        ({"composer_vocab_size": 2}, r"embedding\.weight has the shape 3x40"),
        ({"composer_vocab_size": 4}, "composer_vocab_size is 4"),
        ({"dense_act_fn": "silu"}, "dense_act_fn is 'silu'"),
        ({"is_decoder": True}, "is_decoder is True"),
    ],
    ids=str,
)
def test_what_the_engine_does_not_compute_is_refused(
    changes: Mapping[str, Any], words: str
) -> None:
    model = tiny()
    matrices = Matrices(tensors_of(model), Kind.FLOAT32)
    with pytest.raises(ModelRefused, match=words):
        Pop2Piano({**model.config.to_dict(), **changes}, GENERATION, matrices)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repetition_penalty": 1.1}, r"generation_config\.json: repetition_penalty is 1\.1"),
        ({"suppress_tokens": [3]}, r"suppress_tokens is \[3\]"),
        ({"num_beams": 4}, "num_beams is 4"),
        ({"composer_to_feature_token": {}}, "has no composer_to_feature_token"),
        ({"composer_to_feature_token": {"a": 1, "b": 2, "c": 4}}, "does not number all composers"),
        ({"composer_to_feature_token": {"a": "x"}}, "composer_to_feature_token.a is 'x'"),
        ({"decoder_start_token_id": 60}, r"decoder_start_token_id is 60, not in 0 \.\. 59"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id is None"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
        ({"eos_token_id": "1"}, "eos_token_id is '1'"),
        ({"max_length": 1}, "max_length is 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"do_sample": "yes"}, "do_sample is 'yes'"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_k": 0.5}, "top_k is 0.5"),
    ],
    ids=str,
)
def test_generation_that_the_engine_does_not_do_is_refused(
    changes: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(ModelRefused, match=words):
        tiny_piano(tiny(), **changes)


def test_settings_have_the_defaults_of_transformers() -> None:
    composers = {"composer_to_feature_token": {"a": 1}, "bos_token_id": 4}
    settings = read_settings(composers, 60)
    assert (settings.start, settings.pad, settings.ends, settings.steps) == (4, 0, (), 20)
    assert settings.sampling == Sampling(False, 1.0, 50, 1.0)
    more = {"eos_token_id": 7, "max_length": 30, "do_sample": True, "top_k": 0, "num_beams": 1}
    settings = read_settings({**composers, **more}, 60)
    assert (settings.pad, settings.ends, settings.steps) == (7, (7,), 29)
    assert settings.sampling == Sampling(True, 1.0, 0, 1.0)


def test_values_out_of_range_are_refused_before_the_library_sees_them() -> None:
    piano = tiny_piano(tiny())
    hidden = hidden_states(piano, "a")
    with pytest.raises(ValueError, match="'d' is none of a, b, c"):
        piano.encode(features(40), "d")
    with pytest.raises(ValueError, match="states of shape"):
        piano.encode(features(41), "a")
    with pytest.raises(ValueError, match="states of shape"):
        piano.generate(hidden[..., 1:], STEPS, 3, WILD)
    for steps in (0, 16_385):
        with pytest.raises(ValueError, match=f"5 rows of {steps} positions"):
            piano.generate(hidden, steps, 3, WILD)
    for sampling in (Sampling(True, 0.0), Sampling(guidance=2.0)):
        with pytest.raises(ValueError, match="cannot sample so"):
            piano.generate(hidden, STEPS, 3, sampling)
    for token in (-1, 60):
        with pytest.raises(ValueError, match=r"not in 0 \.\. 59"):
            piano.replay(hidden, np.full((ROWS, 2), token), STEPS, 3, WILD)
    for shape in ((ROWS - 1, 2), (ROWS, STEPS + 1)):
        with pytest.raises(ValueError, match="tokens of shape"):
            piano.replay(hidden, np.zeros(shape, np.int32), STEPS, 3, WILD)
