"""`helium run` as a process: how it stops, and what it says when it cannot start."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocol.network import NetworkParameters
from scripts.testnet_tool.nodes import LocalNode, create_network
from tests.integration.conftest import ROOT, SECONDS


@pytest.fixture
def node(tmp_path: Path) -> LocalNode:
    """A network of one node, of a class that is not this machine's."""
    _, [found] = create_network(tmp_path / "one", 1, {"device": "none"}, NetworkParameters())
    return found


@contextmanager
def _run(node: LocalNode, **flags: str) -> Iterator[subprocess.Popen[str]]:
    settings = {
        "data-dir": str(node.home),
        "network": str(node.home.parent / "network.json"),
        "key": str(node.home / "key.pem"),
        "listen": "/ip4/127.0.0.1/tcp/0",
        **flags,
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "node.cli", "run", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as started:
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()


def _wait_for(started: subprocess.Popen[str], event: str) -> str:
    assert started.stderr is not None
    for line in started.stderr:
        if event in line:
            return line
    raise AssertionError(f"the node ended before it said {event!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("event", ["listening", '"executor"'])
def test_a_signal_stops_it_cleanly(node: LocalNode, number: signal.Signals, event: str) -> None:
    with _run(node) as started:
        _wait_for(started, event)
        started.send_signal(number)
        _, rest = started.communicate(timeout=SECONDS)
    assert started.returncode == 0
    assert "Traceback" not in rest


def test_a_machine_of_another_class_says_why_it_does_not_vote(node: LocalNode) -> None:
    with _run(node) as started:
        line = _wait_for(started, '"executor"')
        assert '"ready": false' in line
        assert "runtime: device: ours 'cpu', theirs 'none'" in line


def test_a_port_that_is_taken_is_one_line(node: LocalNode) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"/ip4/127.0.0.1/tcp/{holder.getsockname()[1]}"
        with _run(node, listen=address) as started:
            _, said = started.communicate(timeout=SECONDS)
    assert started.returncode == 1
    assert said.splitlines() == [f"helium: {address} is taken"]


def test_a_journal_of_another_network_is_not_taken_over(node: LocalNode, tmp_path: Path) -> None:
    with _run(node) as started:
        _wait_for(started, "listening")
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=SECONDS)
    _, [other] = create_network(tmp_path / "two", 1, {"device": "other"}, NetworkParameters())
    network = str(other.home.parent / "network.json")
    with _run(node, network=network) as started:
        _, said = started.communicate(timeout=SECONDS)
    assert started.returncode == 1
    assert said.startswith("helium: ")
    assert said.count("\n") == 1
