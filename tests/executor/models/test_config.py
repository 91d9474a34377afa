"""What configurations tell, whatever stands in them (found by fuzzing: odd numbers raised)."""

import math
from typing import Any

import pytest

from executor.models import config
from executor.models.config import describe
from executor.models.families import FAMILIES
from protocol.model_limits import objection

MUSICGEN: dict[str, Any] = {
    "model_type": "musicgen",
    "decoder": {"max_position_embeddings": 2048, "num_codebooks": 4, "audio_channels": 2},
    "audio_encoder": {"sampling_rate": 32_000, "upsampling_ratios": [8, 5, 4, 4]},
}
ODD: tuple[object, ...] = (
    *(None, True, 0, -1, 2**31, 10**400, 1.5, math.nan, math.inf, "", "a" * 5_000),
    *([], [1], {}, {"a": 1}, [[]], [0], [8, "\0", 2**53], [10**400, 1], [2] * 65),
)


def test_configured_numbers_are_described() -> None:
    description: dict[str, Any] = describe(MUSICGEN, {}, {})
    limits = description["limits"]
    assert (limits["max_new_tokens"], limits["frame_rate"], limits["delay"]) == (2048, 50, 1)
    assert description["sampling_rate"] == 32_000


def test_a_frame_rate_is_rounded_up() -> None:
    codec = {"sampling_rate": 32_001, "upsampling_ratios": [640]}
    limits: Any = describe(MUSICGEN | {"audio_encoder": codec}, {}, {})["limits"]
    assert limits["frame_rate"] == 51


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd!r:.20}")
def test_invalid_numbers_are_not_described(family: str, odd: object) -> None:
    parts = ("decoder", "audio_encoder", "codec_config", "semantic_config", "vocoder_config")
    names = (
        *("max_position_embeddings", "num_codebooks", "audio_channels", "sampling_rate"),
        *("upsampling_ratios", "block_size", "max_input_semantic_length", "semantic_rate_hz"),
        *("frame_rate", "dtype"),
    )
    wrong = dict.fromkeys(names, odd)
    config = {**wrong, **dict.fromkeys(parts, wrong), "model_type": family}
    for description in (
        describe(config, {"semantic_config": wrong}, wrong),
        describe({**dict.fromkeys(parts, odd), "model_type": family}, {"semantic_config": odd}, {}),
    ):
        assert description["dtype"] == "float32"
        limits: Any = description["limits"]
        assert limits.get("max_new_tokens") in (None, 1024 - 256)
        assert type(description.get("sampling_rate", 1)) is int
        assert type(limits.get("delay", 1)) is int
        assert limits.get("delay", 1) >= 0
        rate = limits.get("frame_rate", 1)
        assert isinstance(rate, int | float)
        assert 0 < rate < 2**31


@pytest.mark.parametrize(
    ("positions", "characters"), [(450, 448), (600, 598), (3, 1), (2, None), (10**6, 4096)]
)
def test_text_positions_of_speecht5_limit_the_prompt(
    positions: int, characters: int | None
) -> None:
    limits: Any = config.limits(FAMILIES["speecht5"], {"max_text_positions": positions}, {})
    assert limits.get("prompt_characters") == characters
    if characters:
        assert objection(limits, {"prompt": "x" * characters}) == ""
        problem = objection(limits, {"prompt": "x" * (characters + 1)})
        assert problem.startswith(f"args.prompt: {characters + 1} characters are over")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "speecht5"])
def test_families_whose_text_positions_do_not_end_have_no_such_limit(name: str) -> None:
    assert "prompt_characters" not in config.limits(FAMILIES[name], {}, {})
