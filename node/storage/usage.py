"""What a node has cost since its start, in a file of its data folder that its owner reads."""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

# The file's name in a node's data folder.
USAGE = "usage.json"
# Seconds between two writes. A file that is older by two of them is of a node that has stopped.
USAGE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of one run of a node. Times are Unix seconds.

    `processor_seconds` are those of the node itself: its workers, which execute tasks, are left
    out. Bytes are those of all connections, as TCP carries them; None if the transport does not
    count them. Messages are gossiped ones that were new, and that the node had already.
    """

    started: float
    at: float
    processor_seconds: float
    bytes_in: int | None
    bytes_out: int | None
    messages_new: int
    messages_repeated: int

    def document(self) -> dict[str, float | int | None]:
        """Return every figure by its name."""
        return asdict(self)


def write_usage(folder: Path, usage: Usage) -> None:
    """Replace the file in a data folder. Raises OSError."""
    temporary = folder / f".{USAGE}"
    # Not synced: after a power cut it is of no use.
    temporary.write_text(json.dumps(usage.document()))
    temporary.replace(folder / USAGE)


def read_usage(folder: Path) -> Usage | None:
    """Return what a node last wrote into its data folder; None if there is nothing to be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Usage(**json.loads((folder / USAGE).read_text()))
    return None
