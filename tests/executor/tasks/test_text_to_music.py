import hashlib
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from executor import errors
from executor.errors import TaskFailed
from executor.models.families import FAMILIES
from executor.tasks import text_to_music
from executor.tasks.arguments import sequence_seeds
from executor.tasks.text_to_music import generate_arguments
from tests.executor.delivery import delivered
from tests.vectors.test_vectors import stored

OWN = SimpleNamespace(do_sample=True, temperature=1.0, num_return_sequences=None)
MUSICGEN, BARK, CSM = FAMILIES["musicgen"], FAMILIES["bark"], FAMILIES["csm"]


def loaded_as(
    model: Any, pipeline: Any, generation_config: Any = None
) -> text_to_music.LoadedPipeline:
    """A made-up pipeline, as a model of a family that takes no stopping criteria."""
    return text_to_music.LoadedPipeline(
        pipeline,
        CSM,
        generation_config,
        () if generation_config is None else ((model, generation_config),),
    )


def test_seeds_are_the_specifications() -> None:
    first = hashlib.sha256(b"helium/2/sequence\0" + (7).to_bytes(8) + (1).to_bytes(4)).digest()
    second = hashlib.sha256(b"helium/2/sequence\0" + (7).to_bytes(8) + (2).to_bytes(4)).digest()
    assert sequence_seeds(7, 1) == [7]
    assert sequence_seeds(7, 3) == [7, int.from_bytes(first[:4]), int.from_bytes(second[:4])]


def test_sequence_seeds_match_the_golden_vectors() -> None:
    entries = stored("waveforms.json")["sequences"]
    for entry in entries:
        assert sequence_seeds(entry["seed"], 4) == entry["seeds"]
    assert len({seed for entry in entries for seed in entry["seeds"]}) == 20


def test_only_what_the_task_sets_is_passed_on() -> None:
    members = {"top_k": 3, "num_return_sequences": 2}
    assert generate_arguments(MUSICGEN, members, OWN) == {"top_k": 3}
    assert generate_arguments(MUSICGEN, {}, OWN) == {}


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_temperature_zero_turns_sampling_off(zero: float) -> None:
    arguments = generate_arguments(MUSICGEN, {"temperature": zero, "do_sample": True}, OWN)
    assert arguments == {"temperature": 1.0, "do_sample": False}


def test_bark_max_new_tokens_is_for_the_semantic_part() -> None:
    members = {"max_new_tokens": 9, "top_k": 5}
    arguments = generate_arguments(BARK, members, OWN)
    assert arguments == {"semantic_max_new_tokens": 9, "top_k": 5}


def test_greedy_is_greedy_in_barks_last_part() -> None:
    """It draws wherever the temperature is not 1, whatever do_sample says."""
    arguments = generate_arguments(BARK, {"do_sample": False, "temperature": 0.7}, OWN)
    assert arguments == {"do_sample": False, "temperature": 1.0}


def test_csm_samples_alike_in_both_its_models() -> None:
    arguments = generate_arguments(CSM, {"top_k": 5, "max_new_tokens": 9}, OWN)
    assert arguments == {"top_k": 5, "depth_decoder_top_k": 5, "max_new_tokens": 9}


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        TypeError("no"),
        IndexError("no"),
        RuntimeError("probability tensor contains either `inf`, `nan` or element < 0"),
        RuntimeError("shape mismatch"),
        KeyError("a"),
        OverflowError("too large"),
        RecursionError("deep"),
        RuntimeError("narrow(): length must be non-negative."),
        RuntimeError(
            "Calculated padded input size per channel: (6). Kernel size: (7). "
            "Kernel size can't be greater than actual input size"
        ),
    ],
    ids=str,
)
def test_errors_of_libraries_are_task_failures_to_be_confirmed(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(TaskFailed) as caught:
        errors.with_task_failures(fail)
    assert caught.value.code == "generation-rejected"
    assert not caught.value.confirmed


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), MemoryError(), OSError("gone")], ids=str
)
def test_machine_specific_errors_pass_through(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        errors.with_task_failures(fail)
    assert caught.value is error


def test_settings_are_restored_between_tasks() -> None:
    """Some models' generate writes into the generation settings; each generation starts anew."""
    model = SimpleNamespace(config=SimpleNamespace(model_type="other"), generation_config=None)
    top_ks: list[int] = []

    class Writing:
        def __init__(self) -> None:
            self.model = model

        def __call__(self, prompt: str, **_: Any) -> dict[str, Any]:
            top_ks.append(model.generation_config.top_k)
            model.generation_config.top_k = 99
            return {"audio": np.zeros(3, dtype=np.float32), "sampling_rate": 16_000}

    loaded = loaded_as(model, Writing(), SimpleNamespace(top_k=50, max_length=10))
    args = {"prompt": "x", "seed": 1, "generation_config": {"num_return_sequences": 3}}
    sounds = text_to_music.sounds(loaded, delivered(args), lambda _: None)
    assert len(sounds) == 3
    assert top_ks == [50, 50, 50]


def test_each_sequence_is_seeded_after_loading() -> None:
    numbers: list[tuple[float, float, float]] = []
    model = SimpleNamespace(config=SimpleNamespace(model_type="other"))

    class Drawing:
        def __init__(self) -> None:
            self.model = model

        def __call__(self, prompt: str, **_: Any) -> dict[str, Any]:
            numbers.append((torch.rand(1).item(), float(np.random.rand()), random.random()))
            return {"audio": np.zeros(3, dtype=np.float32), "sampling_rate": 16_000}

    loaded = loaded_as(model, Drawing())
    for seed in (1, 2, 1):
        text_to_music.sounds(loaded, delivered({"prompt": "x", "seed": seed}), lambda _: None)
    assert numbers[0] == numbers[2]
    assert all(first != second for first, second in zip(numbers[0], numbers[1], strict=True))


def test_target_language_is_the_models_or_english_or_its_first() -> None:
    def speaking(*languages: str, **members: str) -> SimpleNamespace:
        tables = {part: dict.fromkeys(languages, 1) for part in text_to_music.LANGUAGE_TABLES}
        return SimpleNamespace(**tables, **members)

    assert text_to_music.target_language(speaking("deu", "eng", "fra", tgt_lang="fra")) == "fra"
    assert text_to_music.target_language(speaking("deu", "eng", tgt_lang="fra")) == "eng"
    assert text_to_music.target_language(speaking("fra", "deu")) == "deu"
    partly = speaking("eng", "fra")
    partly.vocoder_lang_code_to_id = {"fra": 0}
    assert text_to_music.target_language(partly) == "fra"
    with pytest.raises(ValueError, match="no language"):
        text_to_music.target_language(SimpleNamespace())


def test_empty_audio_is_generation_rejected() -> None:
    model = SimpleNamespace(config=SimpleNamespace(model_type="other"))

    class Mute:
        def __init__(self) -> None:
            self.model = model

        def __call__(self, prompt: str, **_: Any) -> dict[str, Any]:
            return {"audio": np.zeros(0, dtype=np.float32), "sampling_rate": 16_000}

    with pytest.raises(TaskFailed) as caught:
        text_to_music.sounds(loaded_as(model, Mute()), {"prompt": "x", "seed": 1}, lambda _: None)
    assert caught.value.code == "generation-rejected"
