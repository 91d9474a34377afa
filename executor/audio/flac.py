"""Read FLAC files by libsndfile, also those that declare no length, as a pipe's (8.7)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import soundfile

from executor.errors import TaskFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Frames that a header can declare, in 36 bits. For one that declares none, libsndfile gives more.
MAX_DECLARED = 2**36 - 1


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file that is read once, forward: at the end of a file of unknown length, seeking fails."""

    def seekable(self) -> bool:
        return False


class Flac:
    """An open FLAC. `frames` is None where its header declares no length."""

    def __init__(self, sound: Any) -> None:
        """`sound` is an open `soundfile.SoundFile`."""
        self._sound = sound
        self.rate, self.channels = int(sound.samplerate), int(sound.channels)
        self.frames = int(sound.frames) if sound.frames <= MAX_DECLARED else None

    def blocks(self, frames: int) -> "Iterator[NDArray[np.float32]]":
        """Yield the samples, at most so many frames at a time, `(frames, channels)`."""
        while len(block := self._sound.read(frames, dtype="float32", always_2d=True)):
            yield block


@contextmanager
def opened(file: IO[bytes]) -> Iterator[Flac]:
    """Give an open file that begins as FLAC. Raises TaskFailed (input-undecodable)."""
    try:
        with _Forward(file) as sound:
            yield Flac(sound)
    except soundfile.SoundFileError as error:
        # The whole message has the file's name, which here is a copy under a random name.
        has_code = isinstance(error, soundfile.LibsndfileError)
        message = error.error_string if has_code else str(error)
        detail = f"a FLAC that is damaged or cut off ({message.removeprefix('Error : ')})"
        raise TaskFailed("input-undecodable", detail) from error
