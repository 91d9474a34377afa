"""What the errors of libraries mean for a task, in words for its requester.

The words go into a trace, which is not compared: whether an error is a task's is decided elsewhere.
"""

from executor.errors import describe_error

NO_SOUND = "the model made no sound of it: choose another prompt or seed, or more max_new_tokens"
# Words of an error's text, and what they mean. The first match counts.
_MEANINGS = (
    (
        ("probability tensor contains",),
        "the probabilities became infinite or no numbers: choose a temperature nearer to 1",
    ),
    (
        (
            "Kernel size can't be greater than actual input size",
            "length must be non-negative",
            "non-empty",
            "is empty",
            "cannot reshape",
            "zero-size array",
            "size 0",
            "must be non-zero",
        ),
        NO_SOUND,
    ),
    (
        ("strictly positive float",),
        "temperature must be greater than 0, or exactly 0 for greedy decoding",
    ),
    (
        ("index out of range", "out of bounds", "must match the size of tensor"),
        "the prompt, or the audio that it asks for, is longer than the model has positions: choose "
        "a shorter prompt or fewer max_new_tokens",
    ),
    (
        ("Input length of", "max_length"),
        "the prompt leaves no room for tokens: choose a shorter prompt or more max_new_tokens",
    ),
)


def describe_failure(error: BaseException) -> str:
    """Return what an error of a generation means, and the library's own words behind it."""
    text, own = str(error), describe_error(error)
    for words, meaning in _MEANINGS:
        if any(word in text for word in words):
            return f"{meaning} ({own[:120]})"
    return own
