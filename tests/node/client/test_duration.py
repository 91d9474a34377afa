import copy
from typing import Any

import pytest

from node.client.duration import audio_seconds, with_max_new_tokens
from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.support import fixtures

MUSICGEN = {"max_new_tokens": 1503, "frame_rate": 50, "delay": 3}


def limited(limits: dict[str, Any]) -> Network:
    document = copy.deepcopy(fixtures.network_document())
    document["models"][0]["limits"] = limits
    return Network.parse(canonical(document))


NET = limited(MUSICGEN)


@pytest.mark.parametrize("config", [{}, {"generation_config": None}, {"generation_config": {}}])
def test_seconds_become_tokens(config: dict[str, Any]) -> None:
    args = fixtures.args(**config)
    assert with_max_new_tokens(NET, args, 8) == fixtures.args(
        generation_config={"max_new_tokens": 403}
    )
    assert args == fixtures.args(**config)


def test_the_rest_of_the_task_stays() -> None:
    config = {"top_p": 0.0, "max_new_tokens": None, "top_k": None}
    args = with_max_new_tokens(NET, fixtures.args(generation_config=config, dtype=None), 0.5)
    assert args == fixtures.args(generation_config={**config, "max_new_tokens": 28}, dtype=None)
    NET.admit(fixtures.task(NET, **args))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "seconds", "reason"),
    [
        (MUSICGEN, 30.01, "helium/embedded-music gives at most 30 s (1503 tokens)"),
        (MUSICGEN, 1e308, "at most 30 s"),
        (MUSICGEN, float("inf"), "at most 30 s"),
        (MUSICGEN, float("nan"), "nan is no length in seconds"),
        (MUSICGEN, 0.0, "0.0 is no length in seconds"),
        (MUSICGEN, -1.0, "-1.0 is no length in seconds"),
        ({"frame_rate": 49.9, "delay": 1, "max_new_tokens": 625}, 12.51, "at most 12.5 s (625 to"),
        ({"frame_rate": 50}, 1400.0, "at most 1310.72 s (65536 tokens)"),
        ({"max_new_tokens": 1503}, 8.0, "not decided by max_new_tokens"),
    ],
)
def test_what_no_tokens_give_is_refused(
    limits: dict[str, Any], seconds: float, reason: str
) -> None:
    with pytest.raises(ValueError, match=r"(no length|at most|not decided)") as refused:
        with_max_new_tokens(limited(limits), fixtures.args(), seconds)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("limits", "longest", "tokens"),
    [
        (MUSICGEN, 30.0, 1503),
        ({"frame_rate": 50, "delay": 3, "max_new_tokens": 2048}, 40.9, 2048),
        ({"frame_rate": 49.9, "delay": 1, "max_new_tokens": 625}, 12.5, 625),
        ({"frame_rate": 12.5}, 5242.88, 65536),
    ],
)
def test_the_longest_that_is_told_can_be_asked(
    limits: dict[str, Any], longest: float, tokens: int
) -> None:
    args: Any = with_max_new_tokens(limited(limits), fixtures.args(), longest)
    assert args["generation_config"] == {"max_new_tokens": tokens}


def test_tokens_and_seconds_are_not_given_together() -> None:
    with pytest.raises(ValueError, match="max_new_tokens is given too"):
        with_max_new_tokens(NET, fixtures.args(generation_config={"max_new_tokens": 403}), 8)


@pytest.mark.parametrize("args", [{}, {"model": "no/such"}, fixtures.args(generation_config=["x"])])
def test_what_is_wrong_in_a_task_is_for_its_check(args: dict[str, Any]) -> None:
    assert with_max_new_tokens(NET, args, 8) == args


@pytest.mark.parametrize(
    ("limits", "config", "length"),
    [
        (MUSICGEN, {"max_new_tokens": 503}, 10.0),
        (MUSICGEN, {"max_new_tokens": 503, "num_return_sequences": 3}, 30.0),
        (MUSICGEN, {"max_new_tokens": 503, "num_return_sequences": None}, 10.0),
        (MUSICGEN, {"max_new_tokens": 3}, None),  # no audio at all
        (MUSICGEN, {"max_new_tokens": None}, None),  # the model's own length
        (MUSICGEN, None, None),
        ({"max_new_tokens": 1503}, {"max_new_tokens": 503}, None),
    ],
)
def test_how_long_a_task_sounds(limits: dict[str, Any], config: Any, length: float | None) -> None:
    net = limited(limits)
    assert audio_seconds(net, fixtures.task(net, generation_config=config)) == length
