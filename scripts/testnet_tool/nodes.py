"""A network of daemons on loopback, each a process of its own: laid out, started, stopped.

`scripts/testnet` shows one to people; the integration tests use the same.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from executor.models.folders import DEFAULTS, SHIPPED
from node.cli.commands.network import ModelSelection, model_entries
from node.config import keystore
from protocol.constants import VERSION
from protocol.network import Network, NetworkParameters
from protocol.wire.encoding import Document, Json, canonical
from protocol.wire.signing import peer_of

CLASS = "testnet-cpu"
MODELS = ModelSelection(DEFAULTS, [SHIPPED], [], None)
MARK = ".testnet"  # in a folder that a test network was laid out in: it may be replaced
START_SECONDS = 240.0  # four workers at once on two slow cores
STOP_SECONDS = 20.0
POLL = 0.1
_PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


class NodeDown(Exception):
    """A daemon ended by itself or did not start; the text has its last words."""


@dataclass(frozen=True, slots=True)
class Place:
    """One node's folder, identity and address. `lie`: which liar it is, None for an honest one."""

    name: str
    home: Path
    peer: str
    port: int
    lie: int | None

    @property
    def address(self) -> str:
        """Its multiaddr."""
        return f"/ip4/127.0.0.1/tcp/{self.port}/p2p/{self.peer}"

    @property
    def log(self) -> Path:
        """Its log, JSON lines."""
        return self.home / "log.jsonl"


def lay_out(
    root: Path,
    count: int,
    runtime: Document,
    parameters: NetworkParameters,
    liars: int = 0,
    models: ModelSelection = MODELS,
) -> tuple[Network, list[Place]]:
    """Make keys, ports and the network document for `count` nodes in the folder `root`.

    The last `liars` of them lie. `models` are listed; the nodes themselves find the shipped ones
    only. Raises FileExistsError if the folder holds anything else.
    """
    _clear(root)
    ports = free_ports(count)
    places = []
    for number, port in enumerate(ports, 1):
        home = root / f"node-{number}"
        key = keystore.create(home / "key.pem")
        lie = number - (count - liars)
        places.append(Place(f"node-{number}", home, peer_of(key), port, lie if lie > 0 else None))
    network = Network.of(_document(places, runtime, parameters, models))
    (root / "network.json").write_bytes(canonical(network.document))
    return network, places


def _document(
    places: Sequence[Place],
    runtime: Document,
    parameters: NetworkParameters,
    models: ModelSelection,
) -> dict[str, Json]:
    roster: list[Json] = [
        {"peer": place.peer, "operator": place.name, "class": CLASS} for place in places
    ]
    return {
        "name": "testnet",
        "version": VERSION,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "parameters": asdict(parameters),
        "classes": {CLASS: runtime},
        "models": model_entries(models),
        "roster": roster,
    }


def _clear(root: Path) -> None:
    if root.is_dir() and any(root.iterdir()):
        if not (root / MARK).is_file():
            raise FileExistsError(f"{root} holds other files: name an empty or a new folder")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / MARK).touch()


def free_ports(count: int) -> list[int]:
    """Return TCP ports that the system says are free on loopback."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Nodes:
    """The running daemons; leaving the `with` block stops them all."""

    def __init__(self, network_file: Path, places: Sequence[Place]) -> None:
        self.places = tuple(places)
        self._network = network_file
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Nodes":
        try:
            for place in self.places:
                self.start(place)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def addresses(self) -> list[str]:
        """All nodes' multiaddrs."""
        return [place.address for place in self.places]

    def entry(self, place: Place) -> list[str]:
        """Return what Python is to run for a node, before the flags of `helium run`."""
        return ["-m", "node.cli", "run"] if place.lie is None else _liar(place.lie)

    def peers(self, place: Place) -> list[str]:
        """Return the multiaddrs that a node is to stay connected with."""
        return [other.address for other in self.places if other is not place]

    def start(self, place: Place) -> None:
        """Start one daemon; its output goes to its log."""
        flags = {
            "--data-dir": str(place.home),
            "--network": str(self._network),
            "--key": str(place.home / "key.pem"),
            "--listen": f"/ip4/127.0.0.1/tcp/{place.port}",
            "--feed-seconds": "2",
            "--log-format": "json",
        }
        arguments = [part for pair in flags.items() for part in pair]
        arguments += [part for address in self.peers(place) for part in ("--peers", address)]
        with place.log.open("ab") as log:
            self._running[place.name] = subprocess.Popen(
                [sys.executable, *self.entry(place), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # calls prctl alone
            )

    def send_signal(self, place: Place, number: signal.Signals) -> None:
        """Send one daemon a signal."""
        self._running[place.name].send_signal(number)

    def kill(self, place: Place) -> None:
        """End one daemon as `kill -9` does."""
        self._running[place.name].kill()
        self._running.pop(place.name).wait()

    def check(self) -> None:
        """Raise NodeDown if a daemon that was started has ended."""
        for place in self.places:
            running = self._running.get(place.name)
            if running is not None and running.poll() is not None:
                raise NodeDown(f"{place.name} ended with code {running.returncode}: {tail(place)}")

    def wait_connected(self, seconds: float = START_SECONDS) -> None:
        """Wait until every running daemon is connected with every other."""
        running = {place.peer for place in self.places if place.name in self._running}
        until = time.monotonic() + seconds
        for place in self.places:
            while place.peer in running and not connected(place) >= running - {place.peer}:
                self.check()
                if time.monotonic() > until:
                    raise NodeDown(f"{place.name} is not connected with all others: {tail(place)}")
                time.sleep(POLL)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until every running daemon is connected and its executor has tested itself."""
        self.wait_connected(seconds)
        until = time.monotonic() + seconds
        for place in self.places:
            while place.name in self._running and not tested(place):
                self.check()
                if time.monotonic() > until:
                    raise NodeDown(f"{place.name} is not ready: {tail(place)}")
                time.sleep(POLL)

    def stop(self) -> dict[str, int]:
        """Stop all daemons: SIGTERM, and SIGKILL for one that does not heed it. Returns codes."""
        for running in self._running.values():
            if running.poll() is None:
                running.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        codes = {}
        for name, running in self._running.items():
            try:
                codes[name] = running.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.kill()
                codes[name] = running.wait()
        self._running.clear()
        return codes


def events(place: Place) -> list[Mapping[str, object]]:
    """Return what a node has logged in its last life, line by line."""
    found: list[Mapping[str, object]] = []
    for line in place.log.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == "listening":
            found.clear()
        found.append(event)
    return found


def connected(place: Place) -> set[str]:
    """Return the peers that a node is connected with now, by its log."""
    peers: set[str] = set()
    for event in events(place):
        if event.get("event") == "connected":
            peers.add(str(event["peer"]))
        elif event.get("event") == "disconnected":
            peers.discard(str(event["peer"]))
    return peers


def tested(place: Place) -> bool:
    """Whether a node's executor is ready, by its log. Raises NodeDown if it never will be."""
    for event in events(place):
        if event.get("event") == "executor" and not event["ready"]:
            raise NodeDown(f"{place.name} is not ready: {event['reasons']}")
    return any(event.get("event") == "executor" for event in events(place))


def tail(place: Place, lines: int = 3) -> str:
    """Return the last lines of a node's log."""
    content = place.log.read_text(errors="replace").splitlines()
    return " | ".join(content[-lines:]) or "it said nothing"


def _liar(lie: int) -> list[str]:
    return ["-m", "scripts.testnet_tool.liar", str(lie)]


def _environment() -> dict[str, str]:
    """Return ours without settings, and with the repository to import from."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HELIUM_")}
    return {**kept, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}


def _end_with_parent() -> None:
    """In the child, before it runs: be told to stop when the parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
