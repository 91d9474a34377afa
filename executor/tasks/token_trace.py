"""Digests of the tokens of a sequence: what a trace says of them (specification 4.6)."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.wire.encoding import tagged_hash

BLOCK_STEPS = 64  # steps per token digest (section 4, `trace`)


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """The digests of a sequence's tokens, one per block of 64 steps.

    `digests` has the first 16 hex of H("tokens", all tokens of the block). `steps` has the first 2
    hex of the same hash of each step alone, joined: enough to find the step where two generations
    differ. Tokens are hashed step by step, each as 4 bytes, little-endian.
    """

    digests: tuple[str, ...]
    steps: tuple[str, ...]


def trace_of(steps: Sequence[bytes]) -> TokenTrace:
    """Return the trace of a sequence, of which each step's tokens are `steps`."""
    blocks = [
        block_digests(steps[start : start + BLOCK_STEPS])
        for start in range(0, len(steps), BLOCK_STEPS)
    ]
    return TokenTrace(tuple(whole for whole, _ in blocks), tuple(single for _, single in blocks))


def block_digests(steps: Sequence[bytes]) -> tuple[str, str]:
    """Return the members of `TokenTrace` for one block of steps."""
    hashes = b"".join(tagged_hash("tokens", step)[:1] for step in steps)
    return tagged_hash("tokens", b"".join(steps))[:8].hex(), hashes.hex()
