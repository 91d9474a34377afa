"""Limits of models: unsupported arguments, and the relation of tokens to seconds."""

import copy
from typing import Any

import pytest

from protocol.errors import Rejection
from protocol.model_limits import (
    DurationUnknown,
    default_objection,
    frames,
    objection,
    seconds_for,
    tokens_for,
)
from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.protocol.rejections import rejected
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
LONG: dict[str, Any] = {"frame_rate": 50, "delay": 3, "output_seconds": 10}
PIANIST: dict[str, Any] = {"composers": ["composer1", "composer2"], "output_seconds": 1}


def network_with(limits: dict[str, Any]) -> Network:
    document = copy.deepcopy(fixtures.network_document())
    document["models"][0]["limits"] = limits
    return Network.parse(canonical(document))


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
    (
        {"prompt_characters": 3},
        {"prompt": "four"},
        "args.prompt: 4 characters are over this model's limit, 3",
    ),
    (
        LONG,
        {"generation_config": {"max_new_tokens": 504}},
        f"{CONFIG}.max_new_tokens: 504 tokens are longer than this model's limit, 10 s",
    ),
    (
        {**LONG, "frame_rate": 12.55, "delay": 0},
        {"generation_config": {"max_new_tokens": 126}},
        f"{CONFIG}.max_new_tokens: 126 tokens are longer than this model's limit, 10 s",
    ),
    (
        {**LONG, "frame_rate": 4, "output_seconds": 1},
        {"generation_config": {"max_new_tokens": 5}},
        f"{CONFIG}.max_new_tokens: 5 tokens are longer than this model's limit, 1 s",
    ),
    (VOICE, {"dtype": "float16"}, "args.dtype: this model does not compute in float16, only in f"),
    (VOICE, {"quantize_bits": 8}, "args.quantize_bits: this model does not compute in 8"),
]


@pytest.mark.parametrize(("limits", "args", "reason"), REFUSED)
def test_objection_names_the_unsupported_field(
    limits: dict[str, Any], args: dict[str, Any], reason: str
) -> None:
    sentence = objection(limits, fixtures.args(**args))
    assert sentence.startswith(reason)
    assert len(sentence) <= 256  # bytes of a failure's detail


ALLOWED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (MUSIC, {}),
    (MUSIC, {"generation_config": None, "dtype": None, "quantize_bits": None}),
    (MUSIC, {"generation_config": {}}),
    (MUSIC, {"generation_config": {"guidance_scale": None, "top_p": None}}),
    (MUSIC, {"generation_config": {"temperature": 0, "num_return_sequences": 4}}),
    (MUSIC, {"generation_config": {"max_new_tokens": 1503}}),
    (MUSIC, {"dtype": "auto", "quantize_bits": 8}),
    (MUSIC, {"dtype": "float16"}),
    (VOICE, {"generation_config": None, "dtype": "auto", "quantize_bits": None}),
    ({"prompt_characters": 3}, {"prompt": "\U0001f600\u00e9\u0301"}),  # code points, not units
    (LONG, {"generation_config": {"max_new_tokens": 503}}),
    (LONG, {"generation_config": {"max_new_tokens": None}}),
    (LONG, {}),
    ({"output_seconds": 1, "delay": 3}, {"generation_config": {"max_new_tokens": 65_536}}),
    ({**LONG, "frame_rate": 12.55, "delay": 0}, {"generation_config": {"max_new_tokens": 125}}),
    # Six tokens lose the delay, and five do not: four frames a second hold six, but not five.
    ({**LONG, "frame_rate": 4, "output_seconds": 1}, {"generation_config": {"max_new_tokens": 6}}),
    # A limit that is left out, or that this version does not know, restricts nothing.
    ({}, {"generation_config": {"guidance_scale": 9}, "dtype": "bfloat16", "quantize_bits": 4}),
    ({"max_new_tokens": 5}, {"generation_config": {"top_k": 9}, "dtype": "float16"}),
    ({"temperature": 1, "seed": []}, {"generation_config": {"temperature": 2}, "seed": 1}),
    ({"frame_rate": 50, "delay": 3}, {"generation_config": {"max_new_tokens": 1}}),
]


@pytest.mark.parametrize(("limits", "args"), ALLOWED)
def test_supported_arguments_raise_no_objection(
    limits: dict[str, Any], args: dict[str, Any]
) -> None:
    assert objection(limits, fixtures.args(**args)) == ""


@pytest.mark.parametrize(("limits", "args", "reason"), REFUSED)
def test_network_rejects_a_task_over_the_model_limits(
    limits: dict[str, Any], args: dict[str, Any], reason: str
) -> None:
    net = network_with(limits)
    with rejected(Rejection.OVER_LIMIT, reason):
        net.admit(fixtures.task(net, **args))


@pytest.mark.parametrize(("limits", "args"), ALLOWED)
def test_network_admits_a_task_within_the_model_limits(
    limits: dict[str, Any], args: dict[str, Any]
) -> None:
    net = network_with(limits)
    net.admit(fixtures.task(net, **args))


@pytest.mark.parametrize("composer", ["composer1", "composer2", None, ...])
def test_listed_or_default_composer_is_within_the_limits(composer: Any) -> None:
    args = fixtures.piano_args(b"song", composer=composer)
    args = {name: value for name, value in args.items() if value is not ...}
    assert objection(PIANIST, args) == ""


@pytest.mark.parametrize("composer", ["composer3", "Composer1", "composer", "null"])
def test_unlisted_composer_is_over_the_limit(composer: str) -> None:
    args = fixtures.piano_args(b"song", composer=composer)
    names = "composer1, composer2"
    text = f"args.composer: this model does not have {composer!r}; it has {names}"
    assert objection(PIANIST, args) == text[:200]


@pytest.mark.parametrize("composer", [None, ...])
def test_default_composer_that_the_model_lacks_is_named_with_its_composers(composer: Any) -> None:
    limits: dict[str, Any] = {"composers": ["composer2", "composer3"]}
    args = fixtures.piano_args(b"song", composer=composer)
    args = {name: value for name, value in args.items() if value is not ...}
    assert objection(limits, args) == "", "the task is valid"
    assert default_objection("pop2piano", limits, args) == (
        "args.composer: is left out, which means 'composer1', and this model does not have it; it"
        " has composer2, composer3"
    )
    named = {**args, "composer": "composer3"}
    assert default_objection("pop2piano", limits, named) == ""
    assert default_objection("pop2piano", PIANIST, args) == ""
    assert default_objection("pop2piano", {}, args) == ""
    assert default_objection("text-to-music", limits, fixtures.args()) == ""


def test_output_seconds_do_not_limit_the_tokens_of_pop2piano() -> None:
    limits = {**PIANIST, "frame_rate": 1}
    config = {"max_new_tokens": 65_536}
    assert objection(limits, fixtures.piano_args(b"song", generation_config=config)) == ""


@pytest.mark.parametrize(
    ("limit", "values"),
    [
        ("prompt_characters", [0, 4097, 1.5, "9", None]),
        ("output_seconds", [0, 86_401, 0.5, True]),
        ("input_seconds", [0, 601, 1.5]),
        ("composers", [[], ["a", "a"], [""], ["x" * 65], ["\u00e9"], ["a\n"], ["a"] * 2, "a"]),
        ("composers", [[f"composer{n}" for n in range(257)]]),
    ],
)
def test_known_limit_of_another_form_makes_the_document_invalid(
    limit: str, values: list[Any]
) -> None:
    for value in values:
        with rejected(Rejection.INVALID_FIELD, f"models[0].limits.{limit}"):
            network_with({limit: value})


def test_limits_at_their_bounds_are_valid() -> None:
    composers = [f"composer{n}" for n in range(256)]
    network_with({"prompt_characters": 4096, "output_seconds": 86_400, "input_seconds": 600})
    network_with({"prompt_characters": 1, "output_seconds": 1, "input_seconds": 1})
    network_with({"composers": composers})
    network_with({"composers": ["x" * 64]})


def test_unknown_limit_is_kept_and_changes_the_network_id() -> None:
    with_unknown_limit = network_with({**MUSIC, "voices": ["anna"]})
    assert with_unknown_limit.models[fixtures.MODEL].limits["voices"] == ["anna"]
    assert with_unknown_limit.id != network_with(MUSIC).id


# Tokens and seconds

MUSICGEN = {"max_new_tokens": 2048, "frame_rate": 50, "delay": 3}
EMBEDDED = network_with({"max_new_tokens": 1503, "frame_rate": 50, "delay": 3})


@pytest.mark.parametrize(
    ("seconds", "tokens"),
    [
        *((10, 503), (8, 403), (8.1, 408), (30.0, 1503)),
        # Below twice the delay every token is a frame.
        *((0.02, 1), (0.021, 2), (0.1, 5), (0.11, 9), (0.12, 9)),
    ],
)
def test_tokens_for_seconds_is_the_smallest_sufficient_number(seconds: float, tokens: int) -> None:
    assert tokens_for(MUSICGEN, seconds) == tokens
    assert seconds_for(MUSICGEN, tokens) >= seconds - 1e-9
    assert all(seconds_for(MUSICGEN, fewer) < seconds for fewer in range(tokens))


def test_503_tokens_of_musicgen_are_ten_seconds() -> None:
    assert seconds_for(MUSICGEN, 503) == 10.0


def test_fewer_tokens_than_twice_the_delay_are_not_delayed() -> None:
    assert [frames(MUSICGEN, tokens) for tokens in range(9)] == [0, 1, 2, 3, 4, 5, 3, 4, 5]
    assert [frames({"delay": 1}, tokens) for tokens in range(4)] == [0, 1, 1, 2]
    assert [frames({}, tokens) for tokens in range(4)] == [0, 1, 2, 3]
    assert seconds_for(MUSICGEN, 5) == 0.1


def test_fractional_frame_rate_rounds_tokens_up() -> None:
    bark = {"frame_rate": 49.9, "delay": 1}
    assert tokens_for(bark, 8) == 401
    assert seconds_for(bark, 401) >= 8


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_seconds_that_are_not_positive_and_finite_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="no length"):
        tokens_for(MUSICGEN, seconds)


def test_missing_delay_is_zero() -> None:
    assert tokens_for({"frame_rate": 12.5}, 8) == 100


@pytest.mark.parametrize(
    "limits", [{}, {"delay": 3}, {"frame_rate": 0}, {"frame_rate": "50"}, {"max_new_tokens": 9}]
)
def test_limits_without_a_frame_rate_give_no_duration(limits: dict[str, Any]) -> None:
    with pytest.raises(DurationUnknown, match="not decided by max_new_tokens"):
        tokens_for(limits, 8)
    with pytest.raises(DurationUnknown):
        seconds_for(limits, 8)


@pytest.mark.parametrize("config", [{}, {"generation_config": None}, {"generation_config": {}}])
def test_seconds_become_max_new_tokens(config: dict[str, Any]) -> None:
    args = fixtures.args(**config)
    expected = fixtures.args(generation_config={"max_new_tokens": 403})
    assert EMBEDDED.with_max_new_tokens(args, 8) == expected
    assert args == fixtures.args(**config)


def test_seconds_leave_the_other_arguments_unchanged() -> None:
    config = {"top_p": 0.0, "max_new_tokens": None, "top_k": None}
    args = EMBEDDED.with_max_new_tokens(fixtures.args(generation_config=config, dtype=None), 0.5)
    assert args == fixtures.args(generation_config={**config, "max_new_tokens": 28}, dtype=None)
    EMBEDDED.admit(fixtures.task(EMBEDDED, **args))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "seconds", "reason"),
    [
        ({"frame_rate": 50, "delay": 3, "max_new_tokens": 1503}, 30.01, "at most 30 s (1503 tok"),
        ({"frame_rate": 50, "delay": 3, "max_new_tokens": 1503}, 1e308, "at most 30 s"),
        ({"frame_rate": 50, "delay": 3, "max_new_tokens": 1503}, float("inf"), "at most 30 s"),
        (MUSICGEN, float("nan"), "nan is no length in seconds"),
        (MUSICGEN, 0.0, "0.0 is no length in seconds"),
        (MUSICGEN, -1.0, "-1.0 is no length in seconds"),
        ({"frame_rate": 49.9, "delay": 1, "max_new_tokens": 625}, 12.51, "at most 12.5 s (625 to"),
        ({"frame_rate": 50, "delay": 3, "max_new_tokens": 7}, 0.11, "at most 0.1 s (7 tokens)"),
        (LONG, 10.01, "at most 10 s"),
        ({**LONG, "frame_rate": 49.95}, 10, "at most 9.98 s"),
        ({"frame_rate": 50}, 1400.0, "helium/embedded-music gives at most 1310.72 s (65536 tokens"),
        ({"max_new_tokens": 1503}, 8.0, "not decided by max_new_tokens"),
    ],
)
def test_seconds_that_the_model_cannot_give_are_refused(
    limits: dict[str, Any], seconds: float, reason: str
) -> None:
    with pytest.raises(ValueError, match=r"(no length|at most|not decided)") as refused:
        network_with(limits).with_max_new_tokens(fixtures.args(), seconds)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("limits", "max_seconds", "tokens"),
    [
        ({"frame_rate": 50, "delay": 3, "max_new_tokens": 1503}, 30.0, 1503),
        (MUSICGEN, 40.9, 2048),
        ({"frame_rate": 49.9, "delay": 1, "max_new_tokens": 625}, 12.5, 625),
        ({"frame_rate": 12.5}, 5242.88, 65536),
        ({"frame_rate": 50, "delay": 3, "max_new_tokens": 7}, 0.1, 5),
        (LONG, 10, 503),
        ({**LONG, "frame_rate": 12.55, "delay": 0}, 9.96, 125),
    ],
)
def test_reported_maximum_of_seconds_is_accepted(
    limits: dict[str, Any], max_seconds: float, tokens: int
) -> None:
    args: Any = network_with(limits).with_max_new_tokens(fixtures.args(), max_seconds)
    assert args["generation_config"] == {"max_new_tokens": tokens}


def test_seconds_and_max_new_tokens_exclude_each_other() -> None:
    args = fixtures.args(generation_config={"max_new_tokens": 403})
    with pytest.raises(ValueError, match="max_new_tokens is given too"):
        EMBEDDED.with_max_new_tokens(args, 8)


@pytest.mark.parametrize("args", [{}, {"model": "no/such"}, fixtures.args(generation_config=["x"])])
def test_malformed_arguments_are_left_to_the_schema_check(args: dict[str, Any]) -> None:
    assert EMBEDDED.with_max_new_tokens(args, 8) == args


@pytest.mark.parametrize(
    ("limits", "config", "expected"),
    [
        (MUSICGEN, {"max_new_tokens": 503}, 10.0),
        (MUSICGEN, {"max_new_tokens": 503, "num_return_sequences": 3}, 30.0),
        (MUSICGEN, {"max_new_tokens": 503, "num_return_sequences": None}, 10.0),
        (MUSICGEN, {"max_new_tokens": 3}, 0.06),  # too few for the delay
        (MUSICGEN, {"max_new_tokens": None}, None),  # the model's own length
        (MUSICGEN, None, None),
        ({"max_new_tokens": 1503}, {"max_new_tokens": 503}, None),
    ],
)
def test_audio_seconds_of_a_task(
    limits: dict[str, Any], config: Any, expected: float | None
) -> None:
    network = network_with(limits)
    assert network.audio_seconds(fixtures.task(network, generation_config=config)) == expected
