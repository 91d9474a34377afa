"""Samples of a process's stacks: which part of the program each belongs to."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

SIGNATURES, OWN, TRANSPORT, REST = PARTS = ("signatures", "own code", "transport", "rest")

# The innermost frame that fits one of these decides. So a library's time counts for its caller:
# SQLite's and the parsers' for our own code, that of a stream's cipher for the transport. Frames of
# asyncio, of the command line and of the executor that stands in for a model fit none.
_RULES = (
    (SIGNATURES, r"/site-packages/nacl/"),
    (SIGNATURES, r"^protocol/wire/signing\.py:(check_signature|signature_of|public_key_of)$"),
    (TRANSPORT, r"/site-packages/(libp2p|trio|noise|multiaddr|outcome)/"),
    (TRANSPORT, r"^node/transport/"),
    (OWN, r"^(node/(?!cli/)|protocol/|schemas/|executor/)"),
)
_FRAME = re.compile(r'  File "(.+)", line \d+ in (.+)')
# The line with which faulthandler begins a stack.
_BEGIN = "(most recent call first):"


def count_parts(text: str) -> Counter[str]:
    """Return the number of samples by part; `text` is what faulthandler has written."""
    return Counter(part_of(stack) for stack in _stacks(text))


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Return each part's share of all samples, in the order of `PARTS`; empty without samples."""
    total = sum(counts.values())
    return {part: counts.get(part, 0) / total for part in PARTS} if total else {}


def part_of(stack: list[str]) -> str:
    """Return the part of a stack: `path:function` of its frames, the innermost first.

    Paths of this project start at its root.
    """
    for frame in stack:
        for part, pattern in _RULES:
            if re.search(pattern, frame):
                return part
    return REST


def _stacks(text: str) -> Iterator[list[str]]:
    for block in text.split(_BEGIN)[1:]:
        frames = [_FRAME.match(line) for line in block.splitlines()]
        yield [
            f"{frame[1].removeprefix(f'{ROOT}/')}:{frame[2]}"
            for frame in frames
            if frame is not None
        ]
