"""A speaker embedding from a seed, for models that need a voice.

It is computed with integers from a hash, then one square root and one division per number, which
IEEE 754 rounds alike on every machine. Torch's normal numbers differ between instruction sets.
"""

import math
import struct

from protocol.wire.encoding import tagged_hash


def embedding(seed: int, size: int) -> list[float]:
    """Return `size` numbers of Euclidean length 1, as x-vectors have, drawn from `seed`.

    Draw i is 32 bits of H("speaker", seed as 8 bytes ‖ block as 4 bytes), big-endian, as a signed
    integer; a block has eight draws, in order.
    """
    draws = [draw for block in range(math.ceil(size / 8)) for draw in _block(seed, block)][:size]
    length = math.sqrt(sum(draw * draw for draw in draws))
    return [draw / length for draw in draws]


def _block(seed: int, block: int) -> tuple[int, ...]:
    return struct.unpack(">8i", tagged_hash("speaker", struct.pack(">QI", seed, block)))
