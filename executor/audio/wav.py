"""Read WAV files of PCM or float, also from a pipe, which cannot say how long they are (8.7).

The samples are read here, not by libsndfile: what its reader makes of a header that is odd, or
written before the length was known, differs from version to version.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from executor.audio.refusal import refuse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Format tags: PCM, float, and the tag that says that either follows in an extension.
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
# What other programs put into a WAV, for people.
OTHER_TAGS = {
    2: "ADPCM",
    6: "A-law",
    7: "mu-law",
    0x11: "ADPCM",
    0x31: "GSM",
    0x50: "MPEG",
    0x55: "MP3",
    0xFF: "AAC",
}
# Chunks that are searched for format and samples, which usually are the first two.
MAX_CHUNKS = 64
# Bytes of a format chunk up to the subformat's tag.
MIN_FORMAT, EXTENDED_FORMAT = 16, 26
# Bytes that a sample may have.
PCM_WIDTHS, FLOAT_WIDTHS = (1, 2, 3, 4), (4, 8)


@dataclass(frozen=True, slots=True)
class Wav:
    """The header of a WAV, and where its samples lie. `width` is the bytes of a sample."""

    file: IO[bytes]
    is_float: bool
    channels: int
    rate: int
    width: int
    start: int
    frames: int

    def blocks(self, frames: int) -> "Iterator[NDArray[np.float32]]":
        """Yield the samples, at most so many frames at a time, `(frames, channels)`."""
        import numpy as np

        left, size = self.frames, self.width * self.channels
        self.file.seek(self.start)
        while left:
            content = self.file.read(min(frames, left) * size)
            block = _samples(np.frombuffer(content, np.uint8), self.is_float, self.width)
            yield block.reshape(-1, self.channels)
            left -= len(content) // size


def read_header(file: IO[bytes]) -> Wav:
    """Return the header of a file that begins as a WAV. Raises TaskFailed (input-undecodable)."""
    end = file.seek(0, 2)
    place, description, samples = 12, None, None
    for _ in range(MAX_CHUNKS):
        file.seek(place)
        header = file.read(8)
        if len(header) < 8 or (description is not None and samples is not None):
            break
        name, size = struct.unpack("<4sI", header)
        place += 8
        if name == b"fmt " and description is None:
            description = file.read(min(size, EXTENDED_FORMAT))
        if name == b"data" and samples is None:
            # Written to a pipe, it has a size of 0 or of all ones; of a file that is cut off, the
            # size exceeds what is there. Each means: to the end of the file.
            size = size if 0 < size <= end - place else end - place
            samples = (place, size)
        place = _after_padding(file, place + size, size)
    refuse(description is None, "a WAV without a format chunk")
    refuse(samples is None, "a WAV without a data chunk")
    assert description is not None  # noqa: S101  # refused above
    assert samples is not None  # noqa: S101  # refused above
    return _described(file, description, *samples)


def _after_padding(file: IO[bytes], place: int, size: int) -> int:
    """Return where the next chunk begins: an odd one is padded, but some programs forget to."""
    if size % 2 == 0:
        return place
    file.seek(place)
    return place + (file.read(1) == b"\0")


def _described(file: IO[bytes], description: bytes, start: int, size: int) -> Wav:
    refuse(len(description) < MIN_FORMAT, "a WAV whose format chunk is cut off")
    tag, channels, rate, _, frame_size, bits = struct.unpack("<HHIIHH", description[:MIN_FORMAT])
    if tag == EXTENSIBLE:
        tag = int.from_bytes(description[24:26], "little")
    known = OTHER_TAGS.get(tag, f"format {tag:#x}")
    refuse(tag not in (PCM, FLOAT), f"a WAV of {known}, neither PCM nor float")
    width = -(-bits // 8)
    widths = PCM_WIDTHS if tag == PCM else FLOAT_WIDTHS
    refuse(width not in widths, f"a WAV of {bits} bits a sample")
    refuse(frame_size != width * channels or not channels, "a WAV whose header contradicts itself")
    return Wav(file, tag == FLOAT, channels, rate, width, start, size // frame_size)


def _samples(content: "NDArray[np.uint8]", is_float: bool, width: int) -> "NDArray[np.float32]":
    """Return samples as binary32, full scale 1. Integers are exact up to 24 bits."""
    import numpy as np

    if is_float:
        # What does not fit is infinite, and so refused; a NaN is refused as well.
        with np.errstate(over="ignore", invalid="ignore"):
            return content.view("<f4" if width == 4 else "<f8").astype(np.float32)
    if width == 1:
        return (content.astype(np.float32) - np.float32(128)) / np.float32(128)
    if width == 3:  # as the upper bytes of a number of 4
        padded = np.zeros((len(content) // 3, 4), np.uint8)
        padded[:, 1:] = content.reshape(-1, 3)
        content, width = padded.reshape(-1), 4
    integers = content.view("<i2" if width == 2 else "<i4").astype(np.float32)
    return integers / np.float32(2.0 ** (8 * width - 1))
