"""A small file system in memory, which a test can fill. It needs a user who may mount one."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class SmallDisk:
    folder: Path

    def fill(self) -> None:
        """Take all space that is left, as another program would."""
        with (self.folder / "filler").open("ab") as filler:
            for size in (1 << 20, 4096):
                while True:
                    try:
                        os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, size)
                    except OSError as error:
                        assert error.errno == errno.ENOSPC  # noqa: PT017  # expected to end so
                        break

    def free(self) -> None:
        """Give all of it back."""
        (self.folder / "filler").unlink()


@contextmanager
def small_disk(folder: Path, megabytes: int = 32) -> Iterator[SmallDisk]:
    """Mount a file system of some MiB on a folder; skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a file system, which a test can fill")
    try:
        yield SmallDisk(folder)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "--lazy", folder], check=True)
