"""The self-test at a worker's start: one small job must give the same bytes cold and warm."""

from collections.abc import Callable

PROMPT, OTHER_PROMPT = "a slow sad piano in A minor", "fast bright arpeggios"
SEED, OTHER_SEED = 20_240_229, 7
# Sampled, so that a flipped bit soon changes a token, and with it all tokens after it.
TOKENS = 70

Render = Callable[[str, int, bool], str]


def check(render: Render) -> tuple[str, str]:
    """Return the SHA-256 of what the job generates, and the problem ("" if there is none).

    `render(prompt, seed, fresh)` generates `TOKENS` tokens with the embedded model, loaded anew if
    `fresh`, and returns the SHA-256 of the canonical waveform.
    """
    cold = render(PROMPT, SEED, True)
    # Another job in between, so that a model which keeps state between jobs is found.
    other_hash = render(OTHER_PROMPT, OTHER_SEED, False)
    warm = render(PROMPT, SEED, False)
    reloaded = render(PROMPT, SEED, True)
    if warm != cold:
        return cold, f"self-test: warm {warm} differs from cold {cold}"
    if reloaded != cold:
        return cold, f"self-test: after loading again {reloaded} differs from {cold}"
    if other_hash == cold:
        return cold, "self-test: another prompt and seed gave the same bytes"
    return cold, ""
