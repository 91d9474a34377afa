"""A Noise session that reads and writes whole buffers, and pays for what it reads.

libp2p's own, as of 0.8.1, reads a message with two reads of the socket, for its length and for its
body. Each passes six layers, of which two take locks. It writes each message singly.
"""

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

import trio
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.security.secure_session import SecureSession

from node.transport.interface import BYTES_IN, BYTES_OUT

# Of one read of the socket: a few of the longest messages.
READ_BYTES = 128 * 1024
# Of the length before each message (libp2p's Noise specification).
LENGTH_BYTES = 2
# What a message costs, in bytes. Measured: 3 us to decrypt it, 30 us for a turn of the loop if it
# comes alone, 1 us for a KiB of its content.
MESSAGE_BYTES = 8192


class MeteredSession(SecureSession):  # type: ignore[misc]  # libp2p is untyped here
    """A secured connection whose bytes and messages are paid for before the next are read.

    Against peers that keep this node decrypting, with many bytes or with many empty messages.
    """

    def __init__(
        self,
        session: SecureSession,
        throttle: Callable[[float], Awaitable[None]],
        traffic: Counter[str],
    ) -> None:
        """`traffic` counts `BYTES_IN` and `BYTES_OUT`, as the socket carries them."""
        self.__dict__.update(session.__dict__)  # what was read ahead included
        self._throttle, self._traffic = throttle, traffic
        self._socket = session.conn.read_writer.read_write_closer
        if hasattr(self._socket, "stream"):
            # This session alone reads from now on; a lock costs a turn of trio's loop each time.
            self._socket.stream.read_lock = contextlib.nullcontext()
        self._encrypted = bytearray()  # the beginning of a message
        self._waiting_since: float | None = None

    @property
    def silent_seconds(self) -> float:
        """For how long this node has waited for the peer's next bytes; 0 if it does not wait."""
        since = self._waiting_since
        return 0.0 if since is None else trio.current_time() - since

    async def receive(self) -> bytes:
        """Return the content of all messages that have arrived, once there is any; b"" at the end.

        Raises what the socket raises, and an exception for a message that was tampered with.
        """
        early: bytes = self._drain(None)
        if early:
            return early
        while True:
            self._waiting_since = trio.current_time()
            received = await self._socket.read(READ_BYTES)
            self._waiting_since = None
            if not received:
                return b""
            self._traffic[BYTES_IN] += len(received)
            self._encrypted += received
            messages = self._decrypt()
            if messages:
                content = b"".join(messages)
                await self.charge(len(content) + MESSAGE_BYTES * len(messages))
                if content:
                    return content

    async def charge(self, amount: float) -> None:
        """Wait until the peer may send more, after what cost as much as `amount` bytes."""
        await self._throttle(amount)

    async def write(self, data: bytes) -> None:
        """Send `data` in as few messages as hold it, with one write of the socket."""
        sent = bytearray()
        for start in range(0, len(data), MAX_PLAINTEXT_LENGTH):
            message = self.conn.encrypt(data[start : start + MAX_PLAINTEXT_LENGTH])
            sent += len(message).to_bytes(LENGTH_BYTES, "big") + message
        self._traffic[BYTES_OUT] += len(sent)
        await self._socket.write(sent)

    def _decrypt(self) -> list[bytes]:
        """Return the content of each whole message, and keep the rest."""
        messages, start, encrypted = [], 0, self._encrypted
        while len(encrypted) >= start + LENGTH_BYTES:
            body = start + LENGTH_BYTES
            end = body + int.from_bytes(encrypted[start:body], "big")
            if end > len(encrypted):
                break
            messages.append(self.conn.decrypt(bytes(encrypted[body:end])))
            start = end
        del encrypted[:start]
        return messages
