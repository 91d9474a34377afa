"""The far end of a connection, as bytes: what it sends, and what it has received."""

from collections import Counter
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.security.secure_session import SecureSession
from noise.connection import NoiseConnection

from node.config.limits import Limits
from node.transport.libp2p.muxing.unread import UnreadBytes
from node.transport.libp2p.muxing.yamux import GuardedYamux
from node.transport.libp2p.quotas import Quotas


class Wire:
    """A socket whose far end the test holds, with Noise keys of both ends."""

    def __init__(self) -> None:
        self._far, self._near = [
            NoiseConnection.from_name(b"Noise_NN_25519_ChaChaPoly_SHA256") for _ in range(2)
        ]
        self._far.set_as_initiator()
        self._near.set_as_responder()
        for end in (self._far, self._near):
            end.start_handshake()
        self._near.read_message(self._far.write_message())
        self._far.read_message(self._near.write_message())
        self._send, self._receive = trio.open_memory_channel[bytes](1000)
        self.written: list[bytes] = []
        """Each write of the near end."""
        self.blocked: Callable[[], Awaitable[object]] | None = None
        """What a write waits for."""

    # The far end.

    def seal(self, content: bytes) -> bytes:
        """Return one Noise message of the far end, with its length before it."""
        message: bytes = self._far.encrypt(content)
        return len(message).to_bytes(2, "big") + message

    def send(self, *pieces: bytes) -> None:
        """Send bytes; each piece is one read of the near end."""
        for piece in pieces:
            self._send.send_nowait(piece)

    def end(self) -> None:
        """Close the far end's direction."""
        self._send.close()

    def received(self) -> list[bytes]:
        """Return the content of each message that was written since the last call."""
        contents, sent = [], b"".join(self.written)
        self.written.clear()
        while sent:
            size = int.from_bytes(sent[:2], "big")
            contents.append(self._far.decrypt(sent[2 : 2 + size]))
            sent = sent[2 + size :]
        return contents

    # The near end.

    async def read(self, n: int) -> bytes:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return b""

    async def write(self, data: bytes) -> None:
        if self.blocked is not None:
            await self.blocked()
        self.written.append(bytes(data))

    async def close(self) -> None:
        self._receive.close()

    def get_remote_address(self) -> tuple[str, int]:
        return ("192.0.2.1", 4001)

    async def _read_message(self) -> bytes:
        message: bytes = self._near.decrypt((await self.read(65_537))[2:])
        return message

    def session(self) -> SecureSession:
        """Return libp2p's own session over this socket."""
        connection = SimpleNamespace(
            read_writer=SimpleNamespace(read_write_closer=self),
            encrypt=self._near.encrypt,
            decrypt=self._near.decrypt,
            read_msg=self._read_message,
            close=self.close,
            get_remote_address=self.get_remote_address,
        )
        unused: Any = None
        return SecureSession(
            local_peer=unused,
            local_private_key=unused,
            remote_peer=unused,
            remote_permanent_pubkey=unused,
            is_initiator=True,
            conn=connection,
        )

    def muxer(self) -> GuardedYamux:
        """Return the near end's muxer, of which `start` is to be run."""
        counts: Counter[str] = Counter()
        quotas = Quotas(Limits(), counts)
        return GuardedYamux(quotas, UnreadBytes(counts), self.session(), ID(b"far"))
