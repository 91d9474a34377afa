"""Real nodes in processes of their own, and the command `helium` against them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from protocol.network import Network, NetworkParameters
from protocol.wire.encoding import Document
from scripts.testnet_tool.nodes import Daemons, LocalNode, create_network, measured_classes
from tests.integration.light import CLASSES, LightDaemons

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240.0  # the longest that any single command may take on a slow machine


@pytest.fixture(scope="session")
def classes() -> dict[str, Document]:
    """The classes of this machine by name; costs a start of each one's worker."""
    return measured_classes(["music", "piano"])


@dataclass(frozen=True, slots=True)
class Running:
    """A running network."""

    network: Network
    daemons: Daemons
    root: Path

    @property
    def nodes(self) -> Sequence[LocalNode]:
        return self.daemons.nodes

    def helium(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command in a fresh process that knows this network."""
        return self.python("-m", "node.cli", *arguments, stdin=stdin)

    def python(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run Python in a fresh process that knows this network."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HELIUM_NETWORK": str(self.root / "network.json"),
            "HELIUM_PEERS": ",".join(self.daemons.addresses),
        }
        return subprocess.run(
            [sys.executable, "-P", *map(str, arguments)],
            cwd=self.root,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def json(self, *arguments: object, stdin: str = "") -> Any:
        """Return the one document that a command prints with --json."""
        done = self.helium(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextmanager
def running_light(
    root: Path, count: int, parameters: NetworkParameters, *arguments: str, liars: int = 0
) -> Iterator[Running]:
    """Run a network of `light` nodes, which need no worker. `arguments` go to every node."""
    network, nodes = create_network(root, count, CLASSES, parameters, liars)
    with LightDaemons(root / "network.json", nodes, arguments) as daemons:
        daemons.wait_ready()
        yield Running(network, daemons, root)


def task(**more: object) -> dict[str, object]:
    """Return arguments of a task that takes about a second, or with more tokens longer."""
    tokens = more.pop("max_new_tokens", 53)
    return {
        "model": "helium/embedded-music",
        "prompt": "bells in the rain",
        "seed": 42,
        "generation_config": {"max_new_tokens": tokens},
        **more,
    }
