"""What a model's limits in the network document forbid, and what they leave alone."""

import copy
from typing import Any

import pytest

from protocol.errors import Rejection
from protocol.model_limits import objection
from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.protocol.expect import rejected
from tests.support import fixtures

MUSIC = {
    "generation_config": ["max_new_tokens", "temperature", "num_return_sequences"],
    "max_new_tokens": 1503,
    "num_return_sequences": 4,
    "dtypes": ["float32", "float16"],
    "quantize_bits": [8],
}
VOICE: dict[str, Any] = {"generation_config": [], "dtypes": ["float32"], "quantize_bits": []}
CONFIG = "args.generation_config"

REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        MUSIC,
        {"generation_config": {"guidance_scale": 3.0}},
        f"{CONFIG}.guidance_scale: this model does not take it; "
        "it takes max_new_tokens, temperature, num_return_sequences",
    ),
    (
        MUSIC,
        {"generation_config": {"max_new_tokens": 1504}},
        f"{CONFIG}.max_new_tokens: 1504 is over this model's limit, 1503",
    ),
    (
        MUSIC,
        {"generation_config": {"num_return_sequences": 5}},
        f"{CONFIG}.num_return_sequences: 5 is over this model's limit, 4",
    ),
    (
        MUSIC,
        {"dtype": "bfloat16"},
        "args.dtype: this model does not compute in bfloat16, only in float32 and float16",
    ),
    (
        MUSIC,
        {"quantize_bits": 4},
        "args.quantize_bits: this model does not compute in 4, only in 8",
    ),
    (
        VOICE,
        {"generation_config": {}},
        f"{CONFIG}: this model takes none, not even an empty one",
    ),
    (
        VOICE,
        {"generation_config": {"top_k": None}},
        f"{CONFIG}: this model takes none, not even an empty one",
    ),
    (
        VOICE,
        {"generation_config": {"top_k": None, "top_p": 0.0}},
        f"{CONFIG}.top_p: this model does not take it",
    ),
    (VOICE, {"dtype": "float16"}, "args.dtype: this model does not compute in float16, only in f"),
    (VOICE, {"quantize_bits": 8}, "args.quantize_bits: this model does not compute in 8"),
]


@pytest.mark.parametrize(("limits", "args", "why"), REFUSED)
def test_what_the_model_does_not_do_is_named(
    limits: dict[str, Any], args: dict[str, Any], why: str
) -> None:
    assert objection(limits, args).startswith(why)
    assert len(objection(limits, args)) <= 256  # bytes of a failure's detail


FINE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (MUSIC, {}),
    (MUSIC, {"generation_config": None, "dtype": None, "quantize_bits": None}),
    (MUSIC, {"generation_config": {}}),
    (MUSIC, {"generation_config": {"guidance_scale": None, "top_p": None}}),
    (MUSIC, {"generation_config": {"temperature": 0, "num_return_sequences": 4}}),
    (MUSIC, {"generation_config": {"max_new_tokens": 1503}}),
    (MUSIC, {"dtype": "auto", "quantize_bits": 8}),
    (MUSIC, {"dtype": "float16"}),
    (VOICE, {"generation_config": None, "dtype": "auto", "quantize_bits": None}),
    # What a document leaves out limits nothing, and neither does what is not known here.
    ({}, {"generation_config": {"guidance_scale": 9}, "dtype": "bfloat16", "quantize_bits": 4}),
    ({"max_new_tokens": 5}, {"generation_config": {"top_k": 9}, "dtype": "float16"}),
    ({"temperature": 1, "seed": []}, {"generation_config": {"temperature": 2}, "seed": 1}),
    ({"frame_rate": 50, "delay": 3}, {"generation_config": {"max_new_tokens": 1}}),
]


@pytest.mark.parametrize(("limits", "args"), FINE)
def test_the_rest_is_left_alone(limits: dict[str, Any], args: dict[str, Any]) -> None:
    assert objection(limits, args) == ""


def limited(limits: dict[str, Any]) -> Network:
    document = copy.deepcopy(fixtures.network_document())
    document["models"][0]["limits"] = limits
    return Network.parse(canonical(document))


@pytest.mark.parametrize(("limits", "args", "why"), REFUSED)
def test_a_network_does_not_admit_it(
    limits: dict[str, Any], args: dict[str, Any], why: str
) -> None:
    net = limited(limits)
    with rejected(Rejection.OVER_LIMIT, why):
        net.admit(fixtures.task(net, **args))


@pytest.mark.parametrize(("limits", "args"), FINE)
def test_a_network_admits_the_rest(limits: dict[str, Any], args: dict[str, Any]) -> None:
    net = limited(limits)
    net.admit(fixtures.task(net, **args))


def test_a_limit_that_is_not_known_is_kept_and_part_of_the_id() -> None:
    with_voices = limited({**MUSIC, "voices": ["anna"]})
    assert with_voices.models[fixtures.MODEL].limits["voices"] == ["anna"]
    assert with_voices.id != limited(MUSIC).id
