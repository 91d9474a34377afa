"""Runs an adversary as a peer of real daemons: over the in-memory transport, in virtual time.

An adversary gossips. Some adversaries also answer requests, with false or malformed responses.
"""

from collections.abc import Sequence
from typing import Any, cast

from node.rpc import codec as rpc_codec
from node.rpc.framing import write_frame
from node.transport.interface import Stream, StreamClosed, ValidationResult
from protocol.consensus.effects import State
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected
from protocol.wire.encoding import Document, canonical, document_hash, parse
from protocol.wire.messages import Message
from tests.simulation.adversaries.adversary import Adversary, FeedPage
from tests.simulation.adversaries.certificate_forger import CertificateForger
from tests.simulation.adversaries.outsiders import FOREIGN, BadRequester, Garbler, LyingFeed
from tests.support import fixtures
from tests.support.memory_transport.network import MemoryNetwork, MemoryTransport

STREAMING = (LyingFeed, Garbler, BadRequester, CertificateForger)
NO_ENVELOPE: Document = {"body": {}, "signer": "nobody", "signature": "none"}
PROTOCOLS = tuple(rpc_codec.protocol_id(name) for name in rpc_codec.REQUESTS)


class AdversaryHost:
    """Gives an adversary a transport and answers the streams that peers open to it."""

    def __init__(self, medium: MemoryNetwork, adversary: Adversary) -> None:
        self.adversary = adversary
        self.transport = MemoryTransport(medium, adversary.peer)
        self._shown: dict[str, bytes] = {}  # what its feed has listed, by id

    async def start(self, addresses: Sequence[str]) -> None:
        """Join the network and dial these addresses."""
        answers = PROTOCOLS if isinstance(self.adversary, STREAMING) else ()
        await self.transport.start(self, self.adversary.environment.topics, answers)
        for address in addresses:
            await self.transport.dial(address)
        self.adversary.begin()

    # Listener

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        # Adversaries forward everything, and parse it later: the transport only passes it on.
        return ValidationResult.ACCEPT, cast("Message", (topic, payload))

    def on_gossip(self, peer: str, message: Message) -> None:
        self.adversary.on_gossip(peer, *cast("tuple[str, bytes]", message))

    async def serve(self, protocol: str, stream: Stream) -> None:
        try:
            if isinstance(self.adversary, Garbler):
                await self._answer_malformed(stream)
            else:
                await self._answer_falsely(protocol.rpartition("/")[2], stream)
        except StreamClosed:
            await stream.reset()

    def connected(self, peer: str) -> None:
        return

    def disconnected(self, peer: str) -> None:
        return

    async def _answer_falsely(self, name: str, stream: Stream) -> None:
        """Answer a valid request: with a wrong network, a false feed or a forged certificate."""
        request: Any = await rpc_codec.read_document(stream, f"{name}-request")
        net = self.adversary.environment.network.id
        if name == "hello":
            foreign = isinstance(self.adversary, LyingFeed) and self.adversary.rng.random() < 0.3
            network = FOREIGN if foreign else net
            await rpc_codec.answer(stream, fixtures.hello_answer(network))
        elif name == "feed":
            await rpc_codec.answer(
                stream, self._feed_response(self.adversary.page(request["feed"], request["cursor"]))
            )
        elif name == "envelopes":
            await self._answer_envelopes(request["ids"], stream)
        elif name == "task" and (certificates := self.adversary.certificates_of(request["task"])):
            answer: Document = {
                "state": State.AGREED,
                "attempt": 0,
                "envelopes": [],
                "certificate": self.adversary.rng.choice(certificates),
            }
            await rpc_codec.answer(stream, answer)
        else:
            await rpc_codec.refuse(stream, rpc_codec.Status.BUSY, "busy", "never free")

    def _feed_response(self, page: FeedPage) -> Document:
        shown = {}
        for text in page.envelopes:
            try:
                shown[document_hash("envelope", parse(text, DOCUMENT_LIMIT))] = text
            except Rejected:
                shown[document_hash("envelope", NO_ENVELOPE)] = canonical(NO_ENVELOPE)
        self._shown.update(shown)
        return {"feed": page.feed, "cursor": page.cursor, "ids": tuple(shown)}

    async def _answer_envelopes(self, ids: Sequence[str], stream: Stream) -> None:
        """Answer with what was listed, or with a lie about it."""
        texts = [self._shown[id_] for id_ in ids]
        all_gone = True
        if isinstance(self.adversary, LyingFeed):
            if self.adversary.lie == "stalled":
                await stream.wait_closed()
            texts, all_gone = self.adversary.listed(texts)
        gone = tuple(id_ for id_ in ids if self._shown[id_] not in texts) if all_gone else ()
        envelopes = tuple(parse(text, DOCUMENT_LIMIT) for text in texts)
        await rpc_codec.answer(stream, {"envelopes": envelopes, "gone": gone})

    async def _answer_malformed(self, stream: Stream) -> None:
        """Send no valid response: noise, an oversized, short or deeply nested frame, or silence."""
        rng = self.adversary.rng
        match rng.choice(("noise", "large", "short", "deep", "silence")):
            case "noise":
                await stream.write(rng.randbytes(1000))
            case "large":
                await stream.write(b"\0" + b"\xff\xff\xff\xff\x7f" + bytes(1000))
            case "short":
                await stream.write(b"\0" + b"\x80\x01" + bytes(10))
            case "deep":
                await stream.write(b"\0")
                await write_frame(stream, b"[" * 1000)
            case _:
                await stream.read_exactly(1_000_000)
