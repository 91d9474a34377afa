"""What people met as messages of torch and numpy."""

import pytest

from executor.tasks.failures import describe_failure


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("narrow(): length must be non-negative."), "the model made no sound"),
        (RuntimeError("Kernel size can't be greater than actual input size"), "made no sound"),
        (ValueError("cannot reshape array of size 0 into shape (0)"), "choose another prompt"),
        (
            RuntimeError("probability tensor contains either `inf`, `nan`"),
            "temperature nearer to 1",
        ),
        (IndexError("index out of range in self"), "choose a shorter prompt"),
        (
            RuntimeError("The size of tensor a (460) must match the size of tensor b (450)"),
            "longer than the model has positions",
        ),
        (ValueError("`temperature` (=-1) has to be a strictly positive float"), "greater than 0"),
        (ValueError("Input length of input_ids is 70, but `max_length` is set to 20"), "no room"),
    ],
    ids=str,
)
def test_errors_of_libraries_say_what_to_do(error: Exception, advice: str) -> None:
    described = describe_failure(error)
    assert advice in described
    assert str(error)[:40] in described


def test_unknown_errors_keep_their_own_words() -> None:
    assert describe_failure(ValueError("odd")) == "ValueError: odd"
    assert describe_failure(ValueError()) == "ValueError"
