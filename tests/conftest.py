"""The hypothesis profiles of all property tests, and the order and the grouping of all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# The suite runs the same examples every time and has no deadline: a slow machine is no failure.
settings.register_profile(
    "suite", deadline=None, derandomize=True, max_examples=100, print_blob=True
)
# `scripts/fuzz` draws new examples in every round.
settings.register_profile("fuzz", deadline=None, max_examples=1_000, print_blob=True)
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parents[1]
# The longest first, so that no process runs one of them alone at the end.
SLOWEST = (
    "tests/scripts/test_piano_training.py",
    "tests/integration/test_hostile.py",
    "tests/integration/workers",
    "tests/scripts/test_music_training.py",
    "tests/executor/tasks",
    "tests/integration",
)
# The files of a folder that share a costly fixture.
SHARED = ("tests/integration/workers",)


@pytest.fixture
def not_under_nohup() -> Iterator[None]:
    """Let programs that a test starts be ended by SIGHUP, which `nohup scripts/test` ignores."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first; the order within a file stays."""
    items.sort(key=lambda item: _position(item.path))


def _position(path: Path) -> int:
    slow = [i for i, name in enumerate(SLOWEST) if path.is_relative_to(ROOT / name)]
    return min(slow, default=len(SLOWEST))


class FolderScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Keeps each file in one process, and all files of a `SHARED` folder in the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return next((folder for folder in SHARED if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Return the scheduler of `--dist loadfile`."""
    return FolderScheduling(config, log) if config.getvalue("dist") == "loadfile" else None
