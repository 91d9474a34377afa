"""A network of daemons on loopback, one process each: create it, start it, stop it.

Used by `scripts/testnet`, `scripts/chaos`, `scripts/bench` and the integration tests.
"""

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from executor.determinism.compute_class import KINDS
from executor.models.folders import DEFAULTS, SHIPPED
from node.cli.commands.network.document import ModelSelection, model_entries
from node.cli.commands.network.measure import local_compute_class
from node.config import keystore
from node.sync.feeds.selection import MESH_MEMBERS
from protocol.constants import VERSION
from protocol.network import Network, NetworkParameters
from protocol.wire.encoding import Document, Json, canonical
from protocol.wire.signing import peer_of
from schemas.errors import HeliumError

MODELS = ModelSelection(DEFAULTS, [SHIPPED], [], None)
# Four workers that start at once on two slow cores need minutes.
START_SECONDS = 240.0
# Time that daemons have to stop after SIGTERM, before SIGKILL.
STOP_SECONDS = 20.0
# Seconds between two reads of the logs.
POLL = 0.1
# Below the ephemeral ports of Linux, so that no outgoing connection takes a port before its daemon
# listens. Random, so that test networks that start at once rarely choose the same.
PORTS = range(10_000, 32_768)
# The event that begins a daemon's part of its log.
STARTING = "starting"
# From Linux' prctl(2).
_PR_SET_PDEATHSIG = 1


class NodeDown(HeliumError):
    """A daemon ended or did not become ready. The message has the end of its log."""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """The folder, identity and address of a node. `lie` is a liar's number, None if honest."""

    name: str
    home: Path
    peer: str
    port: int
    lie: int | None

    @classmethod
    def of(cls, root: Path, name: str, port: int, lie: int | None) -> Self:
        """Return the node whose folder and key are in `root`. Raises KeyUnusable, OSError."""
        home = root / name
        return cls(name, home, peer_of(keystore.load(home / "key.pem")), port, lie)

    @property
    def address(self) -> str:
        """The multiaddr on which it listens."""
        return f"/ip4/127.0.0.1/tcp/{self.port}/p2p/{self.peer}"

    @property
    def log(self) -> Path:
        """The file with its output, one JSON event a line."""
        return self.home / "log.jsonl"


def measured_classes(names: Sequence[str] = ("music",)) -> dict[str, Document]:
    """Return classes of these kinds as this machine computes them. Starts a worker for each."""
    return {name: local_compute_class(KINDS[name]) for name in names}


def create_network(
    root: Path,
    count: int,
    classes: Mapping[str, Document],
    parameters: NetworkParameters,
    liars: int = 0,
    models: ModelSelection = MODELS,
) -> tuple[Network, list[LocalNode]]:
    """Create keys, ports and the network document for `count` nodes in the folder `root`.

    All nodes serve the compute `classes`, in this order. The last `liars` nodes lie. The document
    lists `models`, but the nodes themselves only have the shipped ones.
    """
    root.mkdir(parents=True, exist_ok=True)
    nodes = []
    for number, port in enumerate(free_ports(count), 1):
        name, lie = f"node-{number}", number - (count - liars)
        keystore.create(root / name / "key.pem")
        nodes.append(LocalNode.of(root, name, port, lie if lie > 0 else None))
    network = Network.of(_document(nodes, classes, parameters, models))
    (root / "network.json").write_bytes(canonical(network.document))
    return network, nodes


def _document(
    nodes: Sequence[LocalNode],
    classes: Mapping[str, Document],
    parameters: NetworkParameters,
    models: ModelSelection,
) -> dict[str, Json]:
    roster: list[Json] = [
        {"peer": node.peer, "operator": node.name, "classes": [*classes]} for node in nodes
    ]
    return {
        "name": "testnet",
        "version": VERSION,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "parameters": asdict(parameters),
        "classes": {**classes},
        "models": model_entries(models),
        "roster": roster,
    }


def free_ports(count: int) -> list[int]:
    """Return TCP ports on loopback that were free a moment ago."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(PORTS)
        if port not in ports and is_free(port):
            ports.append(port)
    return ports


def is_free(port: int) -> bool:
    """Return whether a daemon could listen on a TCP port of loopback now."""
    with socket.socket() as listener, contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        return True
    return False


class Daemons:
    """The running daemons of a network. A context manager: leaving the block stops them all."""

    def __init__(self, network_file: Path, nodes: Sequence[LocalNode]) -> None:
        self.nodes = tuple(nodes)
        self._network = network_file
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                self.start(node)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def addresses(self) -> list[str]:
        """The multiaddrs of all nodes."""
        return [node.address for node in self.nodes]

    def entry(self, node: LocalNode) -> list[str]:
        """Return the Python arguments of a daemon, to which the flags of `helium run` are added."""
        return ["-m", "node.cli", "run"] if node.lie is None else _liar(node.lie)

    def peers(self, node: LocalNode) -> list[str]:
        """Return the multiaddrs that a node dials."""
        return [peer.address for peer in self.nodes if peer is not node]

    def start(self, node: LocalNode) -> None:
        """Start one daemon. Its output is appended to its log."""
        flags = {
            "--data-dir": str(node.home),
            "--network": str(self._network),
            "--key": str(node.home / "key.pem"),
            "--listen": f"/ip4/127.0.0.1/tcp/{node.port}",
            "--feed-seconds": "2",
            # The nodes share this machine's processors.
            "--engine-threads": "1",
            "--log-format": "json",
        }
        arguments = [part for pair in flags.items() for part in pair]
        arguments += [part for address in self.peers(node) for part in ("--peers", address)]
        with node.log.open("ab") as log:
            # Until the daemon has written its first line, its log would be that of its last run.
            log.write(json.dumps({"event": STARTING}).encode() + b"\n")
            log.flush()
            self._running[node.name] = subprocess.Popen(
                [sys.executable, *self.entry(node), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # calls prctl alone
            )

    def pid(self, node: LocalNode) -> int:
        """Return the process id of a daemon that was started."""
        return self._running[node.name].pid

    def send_signal(self, node: LocalNode, number: signal.Signals) -> None:
        """Send one daemon a signal."""
        self._running[node.name].send_signal(number)

    def kill(self, node: LocalNode) -> None:
        """End one daemon with SIGKILL."""
        self._running[node.name].kill()
        self._running.pop(node.name).wait()

    def check(self) -> None:
        """Raise NodeDown if a daemon that was started has ended."""
        for node in self.nodes:
            process = self._running.get(node.name)
            if process is not None and process.poll() is not None:
                code = process.returncode
                raise NodeDown(f"{node.name} ended with code {code}: {log_tail(node)}")

    def wait_connected(self, seconds: float = START_SECONDS) -> None:
        """Wait until every running daemon is connected with every other.

        In a large network each keeps connections to some only, and those are enough
        (specification 7.9).
        """
        running = {node.peer for node in self.nodes if node.name in self._running}
        follow = Network.parse(self._network.read_bytes()).parameters.follow
        enough = len(running) if len(self.nodes) - 1 <= follow else follow + MESH_MEMBERS
        deadline = time.monotonic() + seconds
        for node in self.nodes:
            others = running - {node.peer}
            while node.peer in running and len(connected(node) & others) < min(enough, len(others)):
                self.check()
                if time.monotonic() > deadline:
                    raise NodeDown(f"{node.name} did not connect to its peers: {log_tail(node)}")
                time.sleep(POLL)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until every running daemon is connected and its executor passed its self-test."""
        self.wait_connected(seconds)
        deadline = time.monotonic() + seconds
        for node in self.nodes:
            while node.name in self._running and not is_ready(node):
                self.check()
                if time.monotonic() > deadline:
                    raise NodeDown(f"{node.name} did not become ready: {log_tail(node)}")
                time.sleep(POLL)

    def stop(self) -> dict[str, int]:
        """Stop all daemons with SIGTERM, then SIGKILL. Returns their exit codes by name."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        codes = {}
        for name, process in self._running.items():
            try:
                codes[name] = process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        self._running.clear()
        return codes


def events(node: LocalNode) -> list[Mapping[str, object]]:
    """Return the events that a node has logged since its last start."""
    logged: list[Mapping[str, object]] = []
    for line in node.log.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == STARTING:
            logged.clear()
        logged.append(event)
    return logged


def connected(node: LocalNode) -> set[str]:
    """Return the peers to which a node is connected, according to its log."""
    peers: set[str] = set()
    for event in events(node):
        if event.get("event") == "connected":
            peers.add(str(event["peer"]))
        elif event.get("event") == "disconnected":
            peers.discard(str(event["peer"]))
    return peers


def is_ready(node: LocalNode) -> bool:
    """Whether a node's executor is ready and it may vote, according to its log.

    Raises NodeDown if its self-test failed.
    """
    executes, votes = False, True
    for event in events(node):
        match event.get("event"):
            case "executor":
                if not event["ready"]:
                    raise NodeDown(f"{node.name} cannot execute tasks: {event['reasons']}")
                executes = True
            case "votes held":
                votes = False
            case "votes allowed":
                votes = True
    return executes and votes


def log_tail(node: LocalNode, lines: int = 3) -> str:
    """Return the last lines of a node's log."""
    content = node.log.read_text(errors="replace").splitlines()
    return " | ".join(content[-lines:]) or "the log is empty"


def _liar(lie: int) -> list[str]:
    return ["-m", "scripts.testnet_tool.liar", str(lie)]


def _environment() -> dict[str, str]:
    """Return this process's environment without settings of helium, but with the import path."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HELIUM_")}
    return {**inherited, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}


def _end_with_parent() -> None:
    """Ask Linux to send SIGTERM to this process when its parent dies. Runs in the child."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
