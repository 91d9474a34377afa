"""What proves that the steps of a task were computed: tokens blobs and the digest `work`.

Only outcomes of tasks that prove work have them (specification 8.11). The tokens of a sequence are
enough to compute all of its steps anew in one pass; `work` covers logits too, so that whoever only
copied sound or tokens cannot know it.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from protocol.constants import TOKEN_BYTES
from protocol.errors import Rejected, Rejection
from protocol.wire.encoding import tagged_hash

# The logits of each 64th step are in the digest. Those of all steps would be 32 KiB a step to keep
# and to hash for MusicGen's four codebooks, and a step depends on all before it.
KEPT_EVERY = 64

# Bytes of a tokens blob: 16 codebooks of 65,536 steps are 4 MiB, which leaves room for rows.
MAX_TOKENS_BYTES = 16_777_216

# Bytes of the number of steps.
_COUNT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Sequence:
    """What the digest covers of one sequence; all numbers are little-endian.

    `tokens` are int32, step by step, a step's codebooks or rows in order. `logits` are binary32, of
    the steps of `kept_steps`, likewise in order; a row that has ended gives none.
    """

    steps: int
    tokens: bytes
    logits: bytes


def kept_steps(steps: int) -> tuple[int, ...]:
    """Return the steps, from 0, whose logits are in the digest: 63, 127, … and the last, once."""
    whole = range(KEPT_EVERY - 1, steps, KEPT_EVERY)
    return (*whole, steps - 1) if steps % KEPT_EVERY else tuple(whole)


def work_digest(sequences: Iterable[Sequence]) -> str:
    """Return `work` of a task's sequences, 64 lowercase hex characters."""
    parts: list[bytes] = []
    for sequence in sequences:
        parts += [tokens_blob(sequence.steps, sequence.tokens), sequence.logits]
    return tagged_hash("work", b"".join(parts)).hex()


def tokens_blob(steps: int, tokens: bytes) -> bytes:
    """Return the blob of a sequence's tokens: the number of steps, then `tokens`."""
    return struct.pack("<I", steps) + tokens


def parse_tokens(blob: bytes) -> tuple[int, int, bytes]:
    """Return the steps, the columns (codebooks or rows) and the tokens of a blob.

    Both numbers are 0 for a blob of no steps. Raises Rejected(INVALID_FIELD) unless the blob holds
    as many tokens, at least one, for each step.
    """
    if not _COUNT_BYTES <= len(blob) <= MAX_TOKENS_BYTES:
        raise Rejected(Rejection.INVALID_FIELD, f"tokens: a blob of {len(blob)} bytes")
    (steps,) = struct.unpack_from("<I", blob)
    tokens = blob[_COUNT_BYTES:]
    columns = len(tokens) // (TOKEN_BYTES * steps) if steps else 0
    if len(tokens) != TOKEN_BYTES * steps * columns or (steps and not columns):
        raise Rejected(
            Rejection.INVALID_FIELD, f"tokens: {len(tokens)} bytes of tokens for {steps} steps"
        )
    return steps, columns, tokens
