import pytest

from executor.models import duration
from executor.models.folders import EMBEDDED, SHIPPED, describe_model

MUSICGEN = {"max_new_tokens": 2048, "frame_rate": 50, "delay": 3}


@pytest.mark.parametrize(
    ("seconds", "tokens"),
    [(10, 503), (8, 403), (0.02, 4), (0.021, 5), (8.1, 408), (0.1, 8), (30.0, 1503)],
)
def test_tokens_of_seconds(seconds: float, tokens: int) -> None:
    assert duration.tokens(MUSICGEN, seconds) == tokens
    assert duration.seconds(MUSICGEN, tokens) >= seconds - 1e-9
    assert duration.seconds(MUSICGEN, tokens - 1) < seconds


def test_the_documented_relation() -> None:
    """503 tokens are ten seconds, of MusicGen's published models and of the embedded one."""
    assert duration.seconds(MUSICGEN, 503) == 10.0
    limits = describe_model(SHIPPED / EMBEDDED)["limits"]
    assert isinstance(limits, dict)
    assert duration.tokens(limits, 10.0) == 503


@pytest.mark.parametrize("few", [0, 1, 3])
def test_fewer_tokens_than_the_delay_are_no_audio(few: int) -> None:
    assert duration.seconds(MUSICGEN, few) == 0.0


def test_a_rate_that_is_no_integer() -> None:
    bark = {"frame_rate": 49.9, "delay": 1}
    assert duration.tokens(bark, 8) == 401
    assert duration.seconds(bark, 401) >= 8


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_what_is_no_length_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="no length"):
        duration.tokens(MUSICGEN, seconds)


def test_a_delay_left_out_is_none() -> None:
    assert duration.tokens({"frame_rate": 12.5}, 8) == 100


@pytest.mark.parametrize(
    "limits", [{}, {"delay": 3}, {"frame_rate": 0}, {"frame_rate": "50"}, {"max_new_tokens": 9}]
)
def test_a_model_whose_length_is_its_own(limits: dict[str, object]) -> None:
    with pytest.raises(duration.DurationUnknown, match="not decided by max_new_tokens"):
        duration.tokens(limits, 8)
    with pytest.raises(duration.DurationUnknown):
        duration.seconds(limits, 8)
