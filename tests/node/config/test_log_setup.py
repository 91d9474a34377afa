import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import structlog

from node.config import log_setup


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_without_a_terminal() -> None:
    stream = io.StringIO()
    log_setup.configure("info", "auto", stream)
    structlog.get_logger("node.app").info("ready", peers=3, note="é\n")
    (line,) = _lines(stream)
    assert line.pop("timestamp")
    assert line == {
        "event": "ready",
        "level": "info",
        "logger": "node.app",
        "peers": 3,
        "note": "é\n",
    }


def test_pretty_on_a_terminal() -> None:
    stream = _Terminal()
    log_setup.configure("info", "auto", stream)
    structlog.get_logger("node.app").info("ready", peers=3)
    assert "ready" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        _lines(stream)


def test_configured_format_overrides_the_terminal() -> None:
    terminal, file = _Terminal(), io.StringIO()
    log_setup.configure("info", "json", terminal)
    structlog.get_logger().info("ready")
    assert _lines(terminal)[0]["event"] == "ready"
    log_setup.configure("info", "pretty", file)
    structlog.get_logger().info("ready")
    assert "ready" in file.getvalue()
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_messages_below_the_level_are_dropped(form: log_setup.Format) -> None:
    stream = io.StringIO()
    log_setup.configure("warning", form, stream)
    for logger in (structlog.get_logger("helium"), logging.getLogger("library")):
        logger.info("quiet")
        logger.warning("loud")
    assert "quiet" not in stream.getvalue()
    assert stream.getvalue().count("loud") == 2


def test_standard_library_messages_are_formatted_alike() -> None:
    stream = io.StringIO()
    log_setup.configure("info", "json", stream)
    logging.getLogger("asyncio").warning("slow: %s", "callback")
    (line,) = _lines(stream)
    assert (line["event"], line["level"], line["logger"]) == (
        "slow: callback",
        "warning",
        "asyncio",
    )


def test_warnings_are_formatted_alike() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log_setup.configure("info", "json", stream)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "old" in str(_lines(stream)[0]["event"])


def test_second_configuration_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    log_setup.configure("info", "json", first)
    log_setup.configure("info", "json", second)
    structlog.get_logger().info("once")
    assert first.getvalue() == ""
    assert len(_lines(second)) == 1


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_traceback_shows_no_local_variables(form: log_setup.Format) -> None:
    stream = io.StringIO()
    log_setup.configure("info", form, stream)

    def fail() -> None:
        seed = "secret-" + "seed"
        raise ValueError(len(seed))

    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError" in stream.getvalue()
    assert "secret-seed" not in stream.getvalue()


def test_control_characters_of_peers_are_escaped() -> None:
    stream = io.StringIO()
    log_setup.configure("info", "pretty", stream)
    structlog.get_logger().info("refused", detail="\x1b[2Jé", other="\r\nfake")
    logging.getLogger("a.library").error("from \x1b[2J")
    assert "\x1b" not in stream.getvalue()
    assert "detail=\\x1b[2Jé" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 2


def test_logger_that_a_library_detached_is_restored() -> None:
    stream = io.StringIO()
    log_setup.configure("info", "json", stream)
    library = logging.getLogger("a-library")
    library.propagate = False
    library.addHandler(logging.NullHandler())
    logging.getLogger("a-library.part").warning("lost")
    log_setup.restore_logger("a-library")
    logging.getLogger("a-library.part").info("chatter")
    logging.getLogger("a-library.part").warning("heard")
    assert [line["event"] for line in _lines(stream)] == ["heard"]


def test_libp2p_logs_in_our_format_on_standard_error() -> None:
    script = """
import logging
from node.config import log_setup
log_setup.configure("info", "auto")
import libp2p
log_setup.restore_logger("libp2p")
logging.debug("sets the root up, if nobody has")
logging.getLogger("libp2p.host").warning("from libp2p")
logging.getLogger("node").info("from us")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events == ["from libp2p", "from us"]
