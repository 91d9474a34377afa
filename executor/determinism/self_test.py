"""The start-up self-test: the same small job, cold and warm, must give the same bytes."""

from collections.abc import Callable

PROMPT, OTHER_PROMPT = "a slow sad piano in A minor", "fast bright arpeggios"
SEED, OTHER_SEED = 20_240_229, 7
TOKENS = 70  # sampled: a flipped bit anywhere soon shows in the tokens, and so in everything after

Render = Callable[[str, int, bool], str]


def check(render: Render) -> tuple[str, str]:
    """Return the SHA-256 of what the job generates, and what is wrong ("" if nothing).

    `render(prompt, seed, fresh)` generates `TOKENS` tokens with the embedded model, loaded anew if
    `fresh`, and returns the SHA-256 of the canonical waveform.
    """
    cold = render(PROMPT, SEED, True)
    other = render(OTHER_PROMPT, OTHER_SEED, False)
    warm = render(PROMPT, SEED, False)
    reloaded = render(PROMPT, SEED, True)
    if warm != cold:
        return cold, f"self-test: warm {warm} differs from cold {cold}"
    if reloaded != cold:
        return cold, f"self-test: after loading again {reloaded} differs from {cold}"
    if other == cold:
        return cold, "self-test: another prompt and seed gave the same bytes"
    return cold, ""
