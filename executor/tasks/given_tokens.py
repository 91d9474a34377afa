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
    """The tokens of a task's sequences, in the shape that the task has.

    A blob of another shape, or with a token that the model does not have, differs from every
    generation. Such places are noted, and a token that the model has stands in for them.
    """

    def __init__(self, blobs: Sequence[Path], shape: tuple[int, int, int], vocabulary: int) -> None:
        """`shape` is `(sequences, steps, columns)`. Raises OSError."""
        sequences, steps, columns = shape
        self.tokens: NDArray[np.int32] = np.zeros(shape, np.int32)
        self._invalid = [Difference(n, 0, 0) for n in range(sequences, len(blobs))]
        for number in range(sequences):
            given = np.full((steps, columns), -1, np.int32)
            blob = read_blob(blobs[number]) if number < len(blobs) else np.empty((0, 0), np.int32)
            height, width = min(len(blob), steps), min(blob.shape[1], columns)
            given[:height, :width] = blob[:height, :width]
            valid = (given >= 0) & (given < vocabulary)
            self.tokens[number] = np.where(valid, given, 0)
            places = [(int(step), int(column)) for step, column in np.argwhere(~valid)[:1]]
            places += [(0, columns)] if blob.shape[1] > columns else []
            places += [(steps, 0)] if len(blob) > steps else []
            self._invalid += [Difference(number, *place) for place in places]

    def check(self, sequences: int, difference: Difference | None) -> None:
        """Raise `TokensDiffer` for the first difference in the first so many sequences.

        `difference` is the first that a replay of them found, None if it found none. A surplus blob
        counts once all sequences are checked.
        """
        is_last = sequences == len(self.tokens)
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
