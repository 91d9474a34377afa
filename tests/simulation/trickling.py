"""A peer that serves blobs so slowly that nobody has them in time, and is never silent for long."""

import asyncio

from node.rpc import client as rpc_client
from node.transport.interface import Listener
from tests.support.memory_transport.network import MemoryTransport
from tests.support.memory_transport.pipes import MemoryStream

SECONDS = 29.0  # before each write, which is a piece of 256 KiB at most


class TrickleStream(MemoryStream):
    """A stream that another one was, written to slowly."""

    def __init__(self, stream: MemoryStream) -> None:
        super().__init__(stream.peer, stream._inbound, stream._outbound)

    async def write(self, payload: bytes) -> None:
        await asyncio.sleep(SECONDS)
        await super().write(payload)


class Trickler(MemoryTransport):
    """The transport of such a peer; `trickles` says whether it does, for each request."""

    def trickles(self) -> bool:
        return True

    async def _serve(self, listener: Listener, protocol: str, stream: MemoryStream) -> None:
        if protocol == rpc_client.protocol_id("blob") and self.trickles():
            stream = TrickleStream(stream)
        await super()._serve(listener, protocol, stream)
