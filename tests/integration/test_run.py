"""`helium run` as a process: how it stops, and its errors at start."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocol.network import NetworkParameters
from scripts.testnet_tool.nodes import LocalNode, create_network
from tests.integration.conftest import ROOT, SECONDS

# A node without a worker process, for what happens before or without one.
LIGHT = ("tests.integration.light",)


@pytest.fixture
def node(tmp_path: Path) -> LocalNode:
    """Lay out a network of one node, of another compute class than this machine's."""
    _, [node] = create_network(
        tmp_path / "one", 1, {"none": {"device": "none"}}, NetworkParameters()
    )
    return node


@contextmanager
def _run(
    node: LocalNode, command: Sequence[str] = ("node.cli", "run"), **flags: str
) -> Iterator[subprocess.Popen[str]]:
    settings = {
        "data-dir": str(node.home),
        "network": str(node.home.parent / "network.json"),
        "key": str(node.home / "key.pem"),
        "listen": "/ip4/127.0.0.1/tcp/0",
        **flags,
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    with subprocess.Popen(
        [sys.executable, "-P", "-m", *command, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _wait_for(process: subprocess.Popen[str], event: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if event in line:
            return line
    raise AssertionError(f"the node ended before it logged {event!r}")


def _stop(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Stop a node as an impatient operator does: the second signal changes nothing."""
    process.send_signal(number)
    process.send_signal(number)
    _, rest = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert "Traceback" not in rest


def test_sigint_stops_a_node_whose_worker_is_starting(node: LocalNode) -> None:
    with _run(node) as process:
        _wait_for(process, "listening")
        _stop(process, signal.SIGINT)


def test_node_of_another_class_logs_the_reason_and_stops_on_sigterm(node: LocalNode) -> None:
    with _run(node) as process:
        line = _wait_for(process, '"executor"')
        assert '"ready": false' in line
        assert "runtime: device: ours 'cpu', theirs 'none'" in line
        _stop(process, signal.SIGTERM)


def test_occupied_port_is_a_one_line_error(node: LocalNode) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"/ip4/127.0.0.1/tcp/{holder.getsockname()[1]}"
        with _run(node, listen=address) as process:
            _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert error.splitlines() == [f"helium: {address} is already in use"]


def test_data_folder_of_another_network_is_refused(node: LocalNode, tmp_path: Path) -> None:
    with _run(node, LIGHT) as process:
        _wait_for(process, "listening")
        _stop(process, signal.SIGTERM)
    _, [node_of_another_network] = create_network(
        tmp_path / "two", 1, {"other": {"device": "other"}}, NetworkParameters()
    )
    network = str(node_of_another_network.home.parent / "network.json")
    with _run(node, network=network) as process:
        _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert error.startswith("helium: ")
    assert error.count("\n") == 1
