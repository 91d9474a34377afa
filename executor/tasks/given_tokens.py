"""Tokens that a job is to replay: any bytes, from a stranger (specification 8.11)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from executor.errors import TokensDiffer
from executor.job import Difference
from protocol.errors import Rejected
from protocol.work import parse_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray


class GivenTokens:
    """The tokens of a task's sequences, fitted to the shape that the task has.

    A blob of another shape, or with a token that the model does not have, differs from every
    generation. Such places are noted, and a token that the model has stands in for them.
    """

    def __init__(self, blobs: Sequence[Path], sequences: int) -> None:
        """`sequences` is how many the task has. Raises OSError."""
        self._sequences = sequences
        self._blobs = [read_blob(blob) for blob in blobs[:sequences]]
        self._blobs += [np.empty((0, 0), np.int32)] * (sequences - len(self._blobs))
        self._invalid = [Difference(number, 0, 0) for number in range(sequences, len(blobs))]

    def steps(self, sequence: int) -> int:
        """Return how many steps the blob of a sequence has."""
        return len(self._blobs[sequence])

    def fit(self, sequence: int, shape: tuple[int, int], vocabulary: int) -> "NDArray[np.int32]":
        """Return a sequence's tokens in its task's `shape` `(steps, columns)`."""
        blob, (steps, columns) = self._blobs[sequence], shape
        given = np.full(shape, -1, np.int32)
        height, width = min(len(blob), steps), min(blob.shape[1], columns)
        given[:height, :width] = blob[:height, :width]
        valid = (given >= 0) & (given < vocabulary)
        places = [(int(step), int(column)) for step, column in np.argwhere(~valid)[:1]]
        places += [(0, columns)] if blob.shape[1] > columns else []
        places += [(steps, 0)] if len(blob) > steps else []
        self._invalid += [Difference(sequence, *place) for place in places]
        return np.where(valid, given, 0)

    def check(self, sequences: int, difference: Difference | None) -> None:
        """Raise `TokensDiffer` for the first difference in the first so many sequences.

        `difference` is the first that a replay of them found, None if it found none. A surplus blob
        counts once all sequences are checked.
        """
        is_last = sequences == self._sequences
        differences = [d for d in self._invalid if d.sequence < sequences or is_last]
        differences += [] if difference is None else [difference]
        if differences:
            raise TokensDiffer(min(differences, key=lambda d: (d.sequence, d.step, d.column)))


def read_blob(path: Path) -> "NDArray[np.int32]":
    """Return a blob's tokens `(steps, columns)`; none if it is malformed. Raises OSError."""
    try:
        steps, columns, tokens = parse_tokens(path.read_bytes())
    except Rejected:
        return np.empty((0, 0), np.int32)
    return np.frombuffer(tokens, "<i4").reshape(steps, columns).astype(np.int32)
