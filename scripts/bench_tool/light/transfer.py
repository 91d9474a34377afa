"""One side of a transfer, in a process of its own: for `scripts/bench blobs`.

    python -m scripts.bench_tool.light.transfer node BLOB ADDRESS FOLDER
    python -m scripts.bench_tool.light.transfer plain BLOB PORT FOLDER
    python -m scripts.bench_tool.light.transfer hashed BLOB PORT FOLDER
    python -m scripts.bench_tool.light.transfer serve FILE READERS

`node` downloads as a node does, over libp2p into a blob store. `plain` reads a TCP socket to its
end and drops the bytes. `hashed` also hashes them and writes them to a file, as whoever keeps a
verified blob has to. `serve` sends a file to so many sockets. BLOB is a file: a JSON document of
the blob's hash, its size and its chunk hashes.

Each prints a line when it is ready, and begins when it reads one. At the end it prints a line of
JSON: seconds and processor time, the peak of its resident memory beyond that at the begin, and the
bytes that its sockets received.
"""

import asyncio
import hashlib
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.config.limits import Limits
from node.storage.blobs import BlobStore
from node.sync.blob_download import BlobDownloader
from node.sync.dialer import keep_connected, peer_in
from node.transport.interface import Stream, ValidationResult
from node.transport.libp2p.transport import Libp2pTransport
from protocol.manifest import CHUNK_BYTES, Blob
from protocol.wire.messages import Message
from scripts.bench_tool.light.node import count_bytes

# In effect no limit: a node's default is 32 MiB a second.
UNLIMITED = Limits(bytes_per_second=999_999_999)
MIB = 1 << 20


class Memory:
    """The resident memory of a process, from Linux' proc(5), in MiB."""

    def __init__(self, process: int | str = "self") -> None:
        """The peak counts from now on."""
        self._folder = Path(f"/proc/{process}")
        (self._folder / "clear_refs").write_text("5")
        self._before = self._field("VmRSS")

    def growth(self) -> float:
        """Return the peak since the start, less what was resident then."""
        return self._field("VmHWM") - self._before

    def _field(self, name: str) -> float:
        for line in (self._folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise LookupError(name)


class _Listener:
    """A peer that serves nothing and waits for a connection."""

    def __init__(self) -> None:
        self.has_connected = asyncio.Event()

    def validate(self, topic: str, payload: bytes) -> tuple[ValidationResult, Message | None]:
        return ValidationResult.IGNORE, None

    def on_gossip(self, peer: str, message: Message) -> None:
        pass

    async def serve(self, protocol: str, stream: Stream) -> None:
        pass

    def connected(self, peer: str) -> None:
        self.has_connected.set()

    def disconnected(self, peer: str) -> None:
        pass


async def download(blob: Blob, address: str, folder: Path, wait: Callable[[], None]) -> None:
    """Download a blob over libp2p into a store in `folder`; `wait` returns when to begin."""
    key = Ed25519PrivateKey.generate()
    transport = Libp2pTransport(key.private_bytes_raw(), "/ip4/127.0.0.1/tcp/0", limits=UNLIMITED)
    store, listener = BlobStore(folder), _Listener()
    await transport.start(listener, (), ())
    dialer = asyncio.create_task(keep_connected(transport, [address], random.Random()))
    try:
        await listener.has_connected.wait()
        await asyncio.to_thread(wait)
        chunks = BlobDownloader(transport).stream(blob, [peer_in(address)])
        await store.save(chunks, size=blob.size, limit=blob.size, sha256=blob.sha256)
    finally:
        dialer.cancel()
        await transport.stop()


def read_socket(blob: Blob, port: int, file: Path | None, wait: Callable[[], None]) -> None:
    """Read a blob from a socket; with a `file`, hash it and write it there."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        wait()
        buffer, received = memoryview(bytearray(CHUNK_BYTES)), 0
        digest = hashlib.sha256()
        with (file or Path(os.devnull)).open("wb") as target:
            while count := connection.recv_into(buffer):
                received += count
                if file is not None:
                    digest.update(buffer[:count])
                    target.write(buffer[:count])
            if file is not None:
                target.flush()
                os.fsync(target.fileno())
    if received != blob.size or (file is not None and digest.hexdigest() != blob.sha256):
        raise ValueError("the socket gave other bytes")


def serve_sockets(file: Path, readers: int) -> None:
    """Send a file to so many connections at once, a thread for each."""

    def send(connection: socket.socket) -> None:
        with connection, file.open("rb") as source:
            while piece := source.read(CHUNK_BYTES):
                connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as server:
        _say({"port": server.getsockname()[1]})
        connections = [server.accept()[0] for _ in range(readers)]
    sys.stdin.readline()
    threads = [threading.Thread(target=send, args=[each]) for each in connections]
    usage = _Usage()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _say(usage.read())


class _Usage:
    """What this process uses from now until `read`."""

    def __init__(self) -> None:
        self._memory = Memory()
        self._began, self._processor = time.monotonic(), time.process_time()

    def read(self, received: int = 0) -> dict[str, Any]:
        return {
            "seconds": time.monotonic() - self._began,
            "processor": time.process_time() - self._processor,
            "memory_mib": self._memory.growth(),
            "received": received,
        }


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def main() -> None:
    """Run the side that the arguments name."""
    side, *arguments = sys.argv[1:]
    if side == "serve":
        serve_sockets(Path(arguments[0]), int(arguments[1]))
        return
    document = json.loads(Path(arguments[0]).read_text())
    blob = Blob(document["sha256"], document["size"], tuple(document["chunks"]))
    usages = []
    counts = memoryview(bytearray(16)).cast("Q")

    def wait() -> None:
        _say({"ready": True})
        sys.stdin.readline()
        counts[0] = 0
        usages.append(_Usage())

    folder = Path(arguments[2])
    if side == "node":
        count_bytes(counts)
        asyncio.run(download(blob, arguments[1], folder, wait))
    else:
        file = folder / "received" if side == "hashed" else None
        read_socket(blob, int(arguments[1]), file, wait)
    _say(usages[0].read(counts[0]))


if __name__ == "__main__":
    main()
