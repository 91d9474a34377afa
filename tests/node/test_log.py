"""Log lines: a program that configures nothing is left alone, and no peer decides how many."""

import contextlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from node.log import (
    LINES_OF_A_KIND,
    LINES_OF_A_PEER,
    MAX_KEYS,
    PERIOD_SECONDS,
    LineLimiter,
    Logger,
    RepeatFilter,
)

ROOT = Path(__file__).resolve().parents[2]


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_about_one_peer_are_limited_and_those_left_out_are_counted() -> None:
    time = Time()
    log = Logger("test", LineLimiter(time))
    with capture_logs() as lines:
        for _ in range(1000):
            log.warning("invalid envelope", peer="a")
        log.warning("invalid envelope", peer="b")
        log.warning("something else", peer="a")
        for _ in range(100):
            log.warning("no peer")
        assert len(lines) == LINES_OF_A_PEER + 2 + 100
        time.now = PERIOD_SECONDS
        log.warning("invalid envelope", peer="a")
    assert lines[-1]["left_out"] == 1000 - LINES_OF_A_PEER


def test_lines_about_any_number_of_peers_are_limited() -> None:
    log = Logger("test", LineLimiter(Time()))
    with capture_logs() as lines:
        for number in range(10_000):
            log.warning("invalid envelope", peer=str(number))
    assert len(lines) == LINES_OF_A_KIND


def test_a_line_that_cannot_be_written_ends_nothing() -> None:
    was_configured, config = structlog.is_configured(), structlog.get_config()
    with Path("/dev/full").open("w") as full:
        structlog.reset_defaults()  # other tests' processors may need another logger
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(full))
        try:
            with pytest.raises(OSError, match="No space left"):
                structlog.get_logger().error("the disk is full")
            Logger("test").error("the disk is full")
        finally:
            structlog.configure(**config) if was_configured else structlog.reset_defaults()
            with contextlib.suppress(OSError):
                full.close()


def test_what_is_counted_is_bounded() -> None:
    limiter = LineLimiter(Time())
    for number in range(2 * MAX_KEYS):
        assert limiter.left_out(number, 1) == 0
    assert len(limiter._counts) == MAX_KEYS


def test_lines_of_libraries_are_limited_by_their_place() -> None:
    limit = RepeatFilter(LineLimiter(Time()))
    records = [
        logging.LogRecord("libp2p", logging.WARNING, "x.py", 7, f"peer {n}", (), None)
        for n in range(LINES_OF_A_KIND + 50)
    ]
    assert sum(map(limit.filter, records)) == LINES_OF_A_KIND


def test_without_configuration_lines_go_to_logging(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(structlog, "is_configured", lambda: False)
    with caplog.at_level(logging.WARNING):
        log = Logger("client", LineLimiter(Time()))
        log.debug("not this")
        log.warning("retrying", peer="a", seconds=2)
    assert [(r.name, r.getMessage()) for r in caplog.records] == [
        ("helium.client", "retrying peer='a' seconds=2")
    ]


LIBRARY = """
import asyncio, logging, sys
import structlog
from node.client import Client, NoNodeReachable
from node.client import client
from tests.support import fixtures
client.CONNECT_SECONDS = 1.0

async def main():
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{fixtures.peer(0)}"
    try:
        async with Client.connect(fixtures.network(), [address]):
            pass
    except NoNodeReachable as error:
        assert "connection refused" in str(error), error

root = logging.getLogger()
before = (list(root.handlers), root.level, logging.lastResort)
asyncio.run(main())
logging.getLogger("libp2p.network.connection.swarm_connection").debug("x")
import libp2p.network.connection.swarm_connection as module
module.logging.debug("what gave the root logger a handler")
assert (list(root.handlers), root.level, logging.lastResort) == before, root.handlers
assert not structlog.is_configured()
assert not logging.getLogger("py.warnings").handlers
"""


def test_the_client_leaves_the_applications_logging_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
