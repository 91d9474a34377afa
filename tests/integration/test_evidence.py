"""A member signs two conflicting commits. Every node gets evidence and exports it."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from node.config import keystore
from node.rpc.codec import (
    REQUEST_LIMIT,
    REQUESTS,
    Status,
    answer,
    protocol_id,
    read_document,
    refuse,
)
from node.transport.interface import Stream, topics
from node.transport.libp2p.transport import Libp2pTransport
from protocol.network import NetworkParameters
from protocol.wire import messages
from protocol.wire.encoding import Document, Json
from protocol.wire.signing import Envelope, peer_of, sign
from scripts.testnet_tool.nodes import create_network
from tests.integration.conftest import ROOT, SECONDS, Running, task
from tests.integration.light import CLASS, CLASSES, LightDaemons
from tests.node.transport.recorder import Recorder
from tests.support import fixtures

FEED = "f" * 32
ARGUMENTS = ["evidence", "verify", "proof.json", "--json"]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run three nodes of a network of four. The test plays the fourth."""
    root = tmp_path_factory.mktemp("four")
    parameters = NetworkParameters(committee_size=4, committee_max=4, commit_grace_seconds=2)
    network, nodes = create_network(root, 4, CLASSES, parameters)
    daemons = LightDaemons(root / "network.json", nodes)
    try:
        for node in nodes[:3]:
            daemons.start(node)
        daemons.wait_ready()
        yield Running(network, daemons, root)
    finally:
        daemons.stop()


class Equivocator:
    """A node whose feed has a task and two conflicting commits of its own."""

    def __init__(self, network: str, envelopes: Sequence[Envelope], readers: set[str]) -> None:
        """`read_by_all` is set when all `readers` have read the feed to its end."""
        self._network = network
        self._envelopes: dict[str, Json] = {e.id: e.document() for e in envelopes}
        self._readers = set(readers)
        self.read_by_all = asyncio.Event()

    async def serve(self, protocol: str, stream: Stream) -> None:
        name = protocol.rpartition("/")[2]
        request = await read_document(stream, f"{name}-request", REQUEST_LIMIT)
        if name == "hello":
            await answer(stream, fixtures.hello_answer(self._network, ready=False))
        elif name == "feed":
            cursor = request["cursor"] if request["feed"] == FEED else 0
            self._count(stream.peer, cursor)
            end: Document = {"feed": FEED, "cursor": len(self._envelopes)}
            await answer(stream, {**end, "ids": tuple(self._envelopes)[cursor:]})
        elif name == "envelopes":
            given = [self._envelopes[id_] for id_ in request["ids"]]
            await answer(stream, {"envelopes": given, "gone": []})
        else:
            await refuse(stream, Status.UNAVAILABLE, "unknown-blob", "this node has nothing")

    def _count(self, reader: str, cursor: int) -> None:
        if cursor == len(self._envelopes):
            self._readers.discard(reader)
            if not self._readers:
                self.read_by_all.set()


async def _equivocate(four: Running) -> str:
    """Join as the fourth member and serve two conflicting commits. Return the task's id."""
    node, network = four.nodes[3], four.network
    key = keystore.load(node.home / "key.pem", None)
    created = int(time.time() * 1000)
    args: Any = task()
    body = messages.task_body(
        network.id, "text-to-music", args, CLASS, created, 600, "0" * 32, peer_of(key)
    )
    id_ = messages.task_id(body)
    commits = [messages.commit_body(network.id, id_, 0, character * 64) for character in "ab"]
    envelopes = [sign(signed, key) for signed in (body, *commits)]
    liar = Equivocator(network.id, envelopes, {honest.peer for honest in four.nodes[:3]})
    transport = Libp2pTransport(key.private_bytes_raw(), "/ip4/127.0.0.1/tcp/0")
    protocols = [protocol_id(name) for name in REQUESTS]
    await transport.start(Recorder(liar.serve), topics(network.id), protocols)
    try:
        for address in four.daemons.addresses[:3]:
            await transport.dial(address)
        async with asyncio.timeout(SECONDS):
            await liar.read_by_all.wait()
    finally:
        await transport.stop()
    return id_


def test_evidence_reaches_every_node_and_verifies_offline(four: Running, tmp_path: Path) -> None:
    id_ = asyncio.run(_equivocate(four))
    liar = four.nodes[3].peer
    honest = four.daemons.addresses[:3]
    peers = [part for address in honest for part in ("--peer", address)]
    four.json("fetch", id_, "-o", tmp_path / "song.wav", *peers)
    exported: list[Any] = []
    for node in four.nodes[:3]:
        evidence = four.json("evidence", "list", "--data-dir", node.home)["evidence"]
        assert [(entry["signer"], entry["messages"]) for entry in evidence] == [
            (liar, ["commit", "commit"])
        ]
        exported += evidence
    proof = tmp_path / "proof.json"
    flags = ("--data-dir", four.nodes[0].home, "-o", proof)
    four.json("evidence", "export", exported[0]["id"][:12], *flags)

    network = tmp_path / "network.json"
    network.write_bytes((four.root / "network.json").read_bytes())
    done = subprocess.run(
        [sys.executable, "-P", "-m", "node.cli", *ARGUMENTS],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "HELIUM_NETWORK": "network.json",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["valid"], document["signer"]) == (True, liar)

    seen = four.json("peers", "--data-dir", four.nodes[0].home, *peers)["peers"]
    (entry,) = [entry for entry in seen if entry["peer"] == liar]
    assert entry["standing"]["equivocated"] == 1
