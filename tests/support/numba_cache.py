"""Numba's compiled kernels, kept between test processes and test runs in pytest's cache folder.

The first piano cover of a worker without them compiles for 25 seconds of processor time. Numba
keys its kernels by its version, the CPU and the source files, so it ignores those that are old.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from executor.determinism.profile import PLACES
from executor.worker.process import HOME


@contextmanager
def shared_kernels(config: pytest.Config, scratch: Path) -> Iterator[None]:
    """Give the workers of a scratch folder the kept kernels; keep what the block compiles.

    The processes of pytest-xdist wait for each other here, so that one compiles for all.
    """
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is None:  # pytest runs without its cache plugin
        yield
        return
    compiled = scratch / HOME / PLACES["NUMBA_CACHE_DIR"]
    folder = cache.mkdir("helium-numba")
    kept = folder / "kernels"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if kept.exists():
            shutil.copytree(kept, compiled, dirs_exist_ok=True)
        yield
        if compiled.exists() and (not kept.exists() or contents(compiled) != contents(kept)):
            # The whole folder at once, because an index belongs to its kernels.
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(compiled, kept)


def contents(folder: Path) -> set[tuple[str, int, int]]:
    """Return the files of a folder with their sizes and times of change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files}
