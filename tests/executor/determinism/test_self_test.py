from collections.abc import Iterator

import pytest

from executor.determinism import self_test


def renders(*answers: str) -> self_test.Render:
    waiting: Iterator[str] = iter(answers)
    return lambda prompt, seed, fresh: next(waiting)


def test_equal_bytes_pass() -> None:
    assert self_test.check(renders("a", "b", "a", "a")) == ("a", "")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (("a", "b", "c", "a"), "warm c differs from cold a"),
        (("a", "b", "a", "c"), "after loading again c differs"),
        (("a", "a", "a", "a"), "another prompt and seed gave the same"),
    ],
)
def test_difference_is_reported(answers: tuple[str, ...], words: str) -> None:
    assert words in self_test.check(renders(*answers))[1]


def test_another_job_comes_between_cold_and_warm() -> None:
    calls = []

    def render(prompt: str, seed: int, fresh: bool) -> str:
        calls.append((prompt, seed, fresh))
        return prompt

    self_test.check(render)
    cold, another_job, warm, reloaded = calls
    assert cold[:2] == warm[:2] == reloaded[:2] != another_job[:2]
    assert [fresh for *_, fresh in calls] == [True, False, False, True]
