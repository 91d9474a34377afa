"""Each parameter of the text-to-music document: what it does, and what it leaves alone.

By the embedded model where one stands for all, and by a tiny model of each family that has it.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from executor.errors import Abstained
from executor.job import Execution, ModelRef
from executor.models.families import FAMILIES, SAMPLING
from executor.models.folders import EMBEDDED, SHIPPED, describe_model
from executor.tasks.arguments import sequence_seeds
from protocol import model_limits
from tests.executor.conftest import CLASSES, Run, copied, digests, rewritten

SAMPLERS = [name for name, family in CLASSES.items() if "top_k" in FAMILIES[family].honours]
SEVERAL = [n for n, f in CLASSES.items() if "num_return_sequences" in FAMILIES[f].honours]
GUIDED = [name for name, family in CLASSES.items() if "guidance_scale" in FAMILIES[family].honours]
# Frames of a token, where it is exact: bark and the translators end when they have said enough.
FRAMED = {"musicgen": 320, "musicgen_stereo": 320, "musicgen_melody": 320, "csm": 1920}
# A last part that draws by a temperature of its own, out of reach of top_k and top_p.
OWN_DRAW = ("bark",)


def sung(
    execute: Run, model: ModelRef, seed: int = 1, again: bool = False, **config: object
) -> list[str]:
    return digests(execute(model, seed=seed, again=again, generation_config=config))


def outputs(execution: Execution) -> list[dict[str, Any]]:
    result = execution.outcome["result"]
    assert isinstance(result, dict)
    return list(result["outputs"])


def limits_of(folder: Path) -> Mapping[str, object]:
    limits = describe_model(folder)["limits"]
    assert isinstance(limits, dict)
    return limits


# max_new_tokens


@pytest.mark.parametrize("tokens", [6, 7, 20, 33])
@pytest.mark.parametrize("name", FRAMED)
def test_tokens_determine_the_duration(
    execute: Run, tiny: dict[str, ModelRef], folders: Path, name: str, tokens: int
) -> None:
    execution = execute(tiny[name], generation_config={"max_new_tokens": tokens})
    (output,) = outputs(execution)
    limits = limits_of(folders / "tiny" / name)
    seconds = model_limits.seconds_for(limits, tokens)
    assert output["frames"] == pytest.approx(seconds * output["sampling_rate"], abs=1e-6)
    delay = limits["delay"]
    assert isinstance(delay, int)
    assert output["frames"] == (tokens - delay) * FRAMED[name]


def test_eight_seconds_of_the_embedded_model(run: Run) -> None:
    tokens = model_limits.tokens_for(limits_of(SHIPPED / EMBEDDED), 8)
    assert tokens == 403
    assert model_limits.tokens_for(limits_of(SHIPPED / EMBEDDED), 10) == 503  # as documented
    (output,) = outputs(run(generation={"max_new_tokens": tokens}))
    assert output["frames"] == 8 * output["sampling_rate"]


@pytest.mark.parametrize("name", ["bark", "seamless_m4t", "seamless_m4t_v2"])
def test_max_new_tokens_bounds_models_that_end_themselves(
    execute: Run, tiny: dict[str, ModelRef], folders: Path, name: str
) -> None:
    """Fewer tokens, no longer a sound; a seed that speaks on shows that it is cut."""
    few = outputs(execute(tiny[name], generation_config={"max_new_tokens": 4}))[0]
    many = outputs(execute(tiny[name], generation_config={"max_new_tokens": 20}))[0]
    assert 0 < few["frames"] < many["frames"]


def test_barks_tokens_are_seconds_to_a_frame(
    execute: Run, tiny: dict[str, ModelRef], folders: Path
) -> None:
    """Greedy, the tiny model does not end by itself: exactly what so many tokens give."""
    limits = limits_of(folders / "tiny" / "bark")
    for tokens in (2, 9, 24):
        config = {"max_new_tokens": tokens, "do_sample": False}
        (output,) = outputs(execute(tiny["bark"], generation_config=config))
        assert output["frames"] == math.floor(tokens * 75 / 49.9) * 320
        least = model_limits.seconds_for(limits, tokens)
        assert 0 <= output["frames"] / 24_000 - least < 2 / 75 + 1 / 49.9


# do_sample, temperature, top_k, top_p


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampling(execute: Run, tiny: dict[str, ModelRef], name: str) -> None:
    model = tiny[name]
    defaults = [sung(execute, model, seed) for seed in (1, 2, 3)]
    nulls: dict[str, Any] = dict.fromkeys(SAMPLING)
    assert sung(execute, model, **nulls) == defaults[0]
    greedy = sung(execute, model, do_sample=False)
    assert [greedy] * 3 != defaults
    assert sung(execute, model, seed=2, do_sample=False) == greedy
    assert sung(execute, model, do_sample=False, temperature=0.5, top_k=3, top_p=0.4) == greedy
    for sampling in ({}, {"do_sample": True}, {"do_sample": True, "top_k": 2, "top_p": 0.9}):
        assert sung(execute, model, temperature=0, **sampling) == greedy
        assert sung(execute, model, seed=9, temperature=0.0, **sampling) == greedy
    assert sung(execute, model, again=True) == defaults[0]  # nothing of it stays in the model


@pytest.mark.parametrize("change", [{"temperature": 3.0}, {"top_k": 2}, {"top_p": 0.1}], ids=str)
@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampling_filter_changes_the_output(
    execute: Run, tiny: dict[str, ModelRef], name: str, change: dict[str, Any]
) -> None:
    sampled: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    sounds = [sung(execute, tiny[name], seed, **sampled | change) for seed in (1, 2, 3)]
    assert sounds != [sung(execute, tiny[name], seed, **sampled) for seed in (1, 2, 3)]


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in OWN_DRAW])
def test_the_narrowest_filters_leave_the_greedy_choice(
    execute: Run, tiny: dict[str, ModelRef], name: str
) -> None:
    model = tiny[name]
    greedy = sung(execute, model, do_sample=False)
    assert sung(execute, model, do_sample=True, top_k=1) == greedy
    assert sung(execute, model, do_sample=True, top_p=0.0) == greedy


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_widest_filters_filter_nothing(
    execute: Run, tiny: dict[str, ModelRef], name: str
) -> None:
    """0 turns top_k off, which is as many as there are; 1 turns top_p off."""
    off = sung(execute, tiny[name], do_sample=True, top_k=0, top_p=1.0)
    assert sung(execute, tiny[name], do_sample=True, top_k=1_000, top_p=1.0) == off


# num_return_sequences


@pytest.mark.parametrize("name", SEVERAL)
def test_sequences_are_independent_and_a_list(
    execute: Run, tiny: dict[str, ModelRef], name: str
) -> None:
    three = execute(tiny[name], seed=8, generation_config={"num_return_sequences": 3})
    singles = [digests(execute(tiny[name], seed=seed))[0] for seed in sequence_seeds(8, 3)]
    assert digests(three) == singles
    assert len(set(singles)) > 1  # so small a model may say the same twice
    assert [path.stat().st_size for path in three.files] == [o["size"] for o in outputs(three)]
    assert len(digests(execute(tiny[name], seed=8))) == 1


# guidance_scale


@pytest.mark.parametrize("name", GUIDED)
def test_guidance(execute: Run, tiny: dict[str, ModelRef], name: str) -> None:
    """Not above 1 is none; the tiny models' own is 3."""
    model = tiny[name]
    unguided, default, stronger = (
        sung(execute, model, guidance_scale=scale) for scale in (1.0, 3.0, 9.0)
    )
    assert len({*unguided, *default, *stronger}) == 3
    assert sung(execute, model) == default
    assert (
        sung(execute, model, guidance_scale=0.0)
        == sung(execute, model, guidance_scale=0.9)
        == unguided
    )


# dtype and quantize_bits


@pytest.mark.parametrize(
    ("key", "configured"),
    [("dtype", "bfloat16"), ("torch_dtype", "float16")],
)
def test_auto_is_what_the_configuration_says(
    run: Run, folders: Path, key: str, configured: str
) -> None:
    def tell(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config.pop("dtype")
        (folder / "config.json").write_text(json.dumps({**config, key: configured}))

    model = copied(folders, f"{key}-{configured}", tell)
    due = digests(run(dtype=configured))
    assert due != digests(run(dtype="float32"))
    for dtype in ("auto", None):
        assert digests(run(model=model, dtype=dtype)) == due
    assert digests(run(model=model, dtype="float32")) == digests(run(dtype="float32"))
    assert describe_model(folders / "doctored" / f"{key}-{configured}")["dtype"] == configured


def test_auto_without_configured_dtype_is_float32(run: Run, folders: Path) -> None:
    def hush(folder: Path) -> None:
        rewritten(folder / "config.json", dtype=None)

    model = copied(folders, "silent", hush)
    assert describe_model(folders / "doctored" / "silent")["dtype"] == "float32"
    assert digests(run(model=model)) == digests(run(dtype="float32"))


def test_unknown_torch_dtype_is_model_missing(run: Run, folders: Path) -> None:
    model = copied(
        folders, "odd", lambda folder: rewritten(folder / "config.json", dtype="torch.float16")
    )
    with pytest.raises(Abstained, match="AttributeError") as caught:
        run(model=model)
    assert caught.value.reason == "model-missing"


def test_precisions_and_quantisations_all_differ(execute: Run, tiny: dict[str, ModelRef]) -> None:
    """Long enough for a coarser number to change a token; and again the same when repeated."""
    settings: list[Mapping[str, object]] = [
        {"dtype": "float32"},
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
        {"quantize_bits": 8},
        {"quantize_bits": 4},
        {"quantize_bits": 4, "dtype": "bfloat16"},
    ]
    # An untrained model: a trained one is too sure of itself for small differences to change a
    # token.
    model = tiny["musicgen"]
    sounds = [tuple(digests(execute(model, **setting))) for setting in settings]
    assert len({*sounds}) == len(settings)
    repeated = [tuple(digests(execute(model, again=True, **s))) for s in reversed(settings)]
    assert repeated == sounds[::-1]


def test_model_with_odd_shapes_rejects_four_bits(
    execute: Run, tiny: dict[str, ModelRef], folders: Path
) -> None:
    """Whole blocks are wanted of some CPUs only; so that all agree, they are of every one."""
    execution = execute(tiny["musicgen_melody"], quantize_bits=4)
    assert execution.outcome == {"error": "generation-rejected"}


# The whole document


def test_task_with_explicit_nulls_runs(execute: Run, tiny: dict[str, ModelRef]) -> None:
    """Nulls and a top_p of 0.0 as they stand."""
    task = json.loads(
        """{"model": "facebook/musicgen-small", "prompt": "[INST] a rock song [/INST]",
            "generation_config": {"max_new_tokens": 32, "do_sample": true, "temperature": 0.8,
            "top_k": null, "top_p": 0.0, "num_return_sequences": 2, "guidance_scale": null},
            "seed": 42, "dtype": "auto", "quantize_bits": null}"""
    )
    del task["model"]
    execution = execute(tiny["musicgen"], **task)
    assert [output["frames"] for output in outputs(execution)] == [29 * 320] * 2


def test_a_waveform_is_length_by_channels(execute: Run, tiny: dict[str, ModelRef]) -> None:
    """(audio_length, channels): test_families compares the order with transformers'."""
    execution = execute(tiny["musicgen_stereo"])
    (output,) = outputs(execution)
    samples = struct.unpack(f"<{output['size'] // 4}f", execution.files[0].read_bytes())
    assert len(samples) == output["frames"] * output["channels"] == 2 * 37 * 320
    left, right = samples[::2], samples[1::2]
    assert left != right
    mono = outputs(execute(tiny["musicgen"]))[0]
    assert (mono["frames"], mono["channels"]) == (37 * 320, 1)
