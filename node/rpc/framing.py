"""Frames over a stream: uvarint length ‖ bytes (specification 7.3)."""

from node.transport.interface import Stream
from schemas.errors import HeliumError

# With 7 bits each, five bytes hold every length below 32 GiB; no more are ever read.
LENGTH_BYTES = 5


class MalformedFrame(HeliumError, ValueError):
    """The length of a frame is over five bytes, or not minimal."""


class FrameTooLarge(HeliumError, ValueError):
    """The length of a frame is over its limit."""


async def read_frame(stream: Stream, limit: int) -> bytes:
    """Read one frame and return its payload of at most `limit` bytes.

    The length is checked before any byte of the payload is read. Raises `MalformedFrame` for a bad
    length, `FrameTooLarge`, and `StreamClosed` when the stream ends within the frame.
    """
    size = await _read_length(stream)
    if size > limit:
        raise FrameTooLarge(f"a frame of {size} bytes is over the limit of {limit}")
    return await stream.read_exactly(size) if size else b""


async def write_frame(stream: Stream, payload: bytes) -> None:
    """Write one frame; raises `StreamClosed`."""
    await stream.write(frame(payload))


def frame(payload: bytes) -> bytes:
    """Return one frame."""
    return encode_length(len(payload)) + payload


def encode_length(size: int) -> bytes:
    """Return `size` as an unsigned varint in its shortest form: 7 bits a byte, the lowest first."""
    encoded = bytearray()
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    if len(encoded) > LENGTH_BYTES:
        raise ValueError("a frame's length must fit five bytes")
    return bytes(encoded)


async def _read_length(stream: Stream) -> int:
    size = 0
    for position in range(LENGTH_BYTES):
        byte = (await stream.read_exactly(1))[0]
        size |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            if byte == 0 and position > 0:
                raise MalformedFrame("a frame's length is not in its shortest form")
            return size
    raise MalformedFrame("a frame's length is over five bytes")
