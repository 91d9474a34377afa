"""MusicGen on the engine, from a prompt to a waveform, against transformers' pipeline."""

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer, MusicgenForConditionalGeneration, set_seed

from executor.engine import music
from executor.engine.matrices import Kind, kind_of
from executor.engine.music import (
    MODEL_TYPES,
    MusicModel,
    part_of,
    read_settings,
    read_tokenizer,
)
from executor.engine.pool import Control
from executor.engine.sampling import Sampling
from executor.errors import Abstained, ModelRefused, TaskFailed
from executor.job import Difference
from executor.models.families import ENGINE_FAMILIES
from executor.models.folders import EMBEDDED, SHIPPED

FOLDER = SHIPPED / EMBEDDED
PROMPT = "80s pop track with bassy drums and synth"
STEPS = 40


def test_families_are_those_that_network_documents_list_with_replay() -> None:
    assert {*MODEL_TYPES, "pop2piano"} == {*ENGINE_FAMILIES}


@functools.cache
def shipped() -> MusicModel:
    return MusicModel(FOLDER, Kind.FLOAT32)


@functools.cache
def reference() -> Any:
    return MusicgenForConditionalGeneration.from_pretrained(
        FOLDER, dtype=torch.float32, local_files_only=True
    ).eval()


def waveform_of_transformers(seed: int, **arguments: Any) -> Any:
    ids = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)(PROMPT, return_tensors="pt")
    model = reference()  # loading draws random numbers
    set_seed(seed)
    with torch.inference_mode():
        return model.generate(**ids, **arguments)[0].numpy()


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"do_sample": False},
        {"guidance_scale": 1.0},
        {"temperature": 1.3, "top_k": 20, "top_p": 0.9},
        {"top_p": 0.0},
        {"top_k": 0},
    ],
    ids=str,
)
def test_the_waveform_is_that_of_transformers(members: Mapping[str, Any]) -> None:
    """But for rounding: 2.5e-5 of the peak is what transformers' own float32 differs by."""
    model = shipped()
    request = model.request(PROMPT, [42], {"max_new_tokens": STEPS, **members})
    waveform = model.decode(model.generate(request).tokens[0])
    expected = waveform_of_transformers(42, max_new_tokens=STEPS, **members)
    assert waveform.shape == expected.shape
    assert np.abs(waveform - expected).max() < 5e-4 * np.abs(expected).max()


def test_a_replay_of_the_right_tokens_gives_the_same_logits() -> None:
    model = shipped()
    request = model.request(PROMPT, [42, 43], {"max_new_tokens": STEPS})
    steps = model.generate(request)
    replayed, difference = model.replay(request, steps.tokens)
    assert difference is None
    assert (replayed.logits.view("u4") == steps.logits.view("u4")).all()


def test_a_replay_names_the_first_token_of_another_seed() -> None:
    model = shipped()
    right, wrong = (model.request(PROMPT, [seed], {"max_new_tokens": STEPS}) for seed in (1, 2))
    _, difference = model.replay(right, model.generate(wrong).tokens)
    assert isinstance(difference, Difference)
    assert difference.step < 4


def test_the_models_own_settings_count_where_a_task_has_none() -> None:
    request = shipped().request(PROMPT, [1], {})
    assert (request.steps, request.sampling) == (502, Sampling(True, 0.9, 50, 1.0, 2.0))
    zero = shipped().request(PROMPT, [1], {"temperature": 0.0, "guidance_scale": 0.5})
    assert zero.sampling == Sampling(False, 1.0, 50, 1.0, 1.0)


def test_a_stopped_job_abstains() -> None:
    control = Control()
    control.stop.value = 1
    model = shipped()
    request = model.request(PROMPT, [1], {"max_new_tokens": STEPS})
    with pytest.raises(Abstained, match="stopped"):
        model.generate(request, control=control)


@pytest.mark.parametrize("steps", [2049, 70_000])
def test_more_steps_than_positions_are_an_agreed_error(steps: int) -> None:
    with pytest.raises(TaskFailed, match=f"generation-rejected: {steps} tokens"):
        shipped().request(PROMPT, [1], {"max_new_tokens": steps})


def test_more_sound_than_the_codec_decodes_is_an_agreed_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(music, "MAX_SAMPLES", 320 * 100)
    model = MusicModel(FOLDER, Kind.FLOAT32)
    assert model.request(PROMPT, [1], {"max_new_tokens": 100}).steps == 100
    with pytest.raises(TaskFailed, match="generation-rejected: 101 tokens, at most 100"):
        model.request(PROMPT, [1], {"max_new_tokens": 101})


def test_a_file_of_16_bits_gives_the_bits_of_its_float32_copy(tmp_path: Path) -> None:
    """The shipped file is float16: its weights are read where they lie."""
    folder = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor.astype(np.float32) for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    steps = []
    for model in (shipped(), MusicModel(folder, Kind.FLOAT32), MusicModel(FOLDER, Kind.FLOAT16)):
        steps.append(model.generate(model.request(PROMPT, [42], {"max_new_tokens": 20})))
    for other in steps[1:]:
        assert other.logits.tobytes() == steps[0].logits.tobytes()


def test_at_most_a_tenth_of_a_file_is_copied() -> None:
    """What is laid anew are the codec's convolutions; this file is of 16 bits."""
    model = MusicModel(FOLDER, Kind.FLOAT32)
    copied = model._encoder._matrices.copied_bytes + model._codec.copied_bytes
    assert 0 < copied < 0.1 * (FOLDER / "model.safetensors").stat().st_size


def test_precisions_have_kinds() -> None:
    assert kind_of("float32", None) is Kind.FLOAT32
    assert kind_of("float16", None) is Kind.FLOAT16
    assert kind_of("bfloat16", None) is Kind.BFLOAT16
    assert (kind_of("float32", 8), kind_of("float32", 4)) == (Kind.INT8, Kind.INT4)
    for dtype, bits in (("float64", None), ("float32", 2)):
        with pytest.raises(TaskFailed, match="generation-rejected"):
            kind_of(dtype, bits)


@pytest.mark.parametrize("kind", list(Kind))
def test_each_precision_makes_a_sound(kind: Kind) -> None:
    model = MusicModel(FOLDER, kind)
    request = model.request(PROMPT, [42], {"max_new_tokens": STEPS})
    waveform = model.decode(model.generate(request).tokens[0])
    assert np.isfinite(waveform).all()
    assert np.abs(waveform).max() > 0.01


def copied(tmp_path: Path, file: str, **changes: Any) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(FOLDER, folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changes}))
    return folder


@pytest.mark.parametrize(
    ("setting", "value"),
    [("repetition_penalty", 1.2), ("num_beams", 4), ("eos_token_id", 3), ("min_length", 10)],
)
def test_a_setting_that_the_engine_does_not_compute_is_refused(
    tmp_path: Path, setting: str, value: object
) -> None:
    folder = copied(tmp_path, "generation_config.json", **{setting: value})
    with pytest.raises(ModelRefused, match=f"does not compute {setting}"):
        read_settings(folder, 512)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_length", "long"),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_p", 2.0),
        ("guidance_scale", [3]),
        ("do_sample", "yes"),
    ],
)
def test_a_setting_that_is_no_value_of_its_kind_is_refused(
    tmp_path: Path, setting: str, value: object
) -> None:
    folder = copied(tmp_path, "generation_config.json", **{setting: value})
    with pytest.raises(ModelRefused, match=f"{setting} is "):
        read_settings(folder, 512)


def test_another_start_token_is_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path, "generation_config.json", decoder_start_token_id=511)
    with pytest.raises(ModelRefused, match="does not compute decoder_start_token_id"):
        read_settings(folder, 512)


def test_other_models_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path, "config.json", model_type="bark")
    with pytest.raises(ModelRefused, match="model_type is none of musicgen, musicgen_melody"):
        MusicModel(folder, Kind.FLOAT32)
    with pytest.raises(ModelRefused, match="decoder is missing"):
        part_of({"decoder": 1}, "decoder")


def test_padding_and_truncation_of_the_tokenizers_file_do_not_count(tmp_path: Path) -> None:
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 50},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    folder = copied(tmp_path, "tokenizer.json", truncation=truncation, padding=padding)
    assert read_tokenizer(folder).encode(PROMPT).ids == read_tokenizer(FOLDER).encode(PROMPT).ids


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model": {"type": "none"}}'])
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None) -> None:
    folder = copied(tmp_path, "config.json")
    path = folder / "tokenizer.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelRefused, match=r"tokenizer\.json"):
        MusicModel(folder, Kind.FLOAT32)
