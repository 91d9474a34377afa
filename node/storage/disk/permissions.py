"""File modes of the data folder: its owner alone may read or change anything in it.

The journal has the salts of votes that are not revealed yet. Whoever reads one early knows the
vote, and can copy it. SQLite gives `-wal` and `-shm` the mode of the database file.
"""

import os
import stat
from pathlib import Path

from node.log import get_logger

log = get_logger("node")

# Modes of a folder and of a file that only their owner can use.
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
# What group and others may do.
_OTHERS = 0o077


def make_private_folder(folder: Path) -> None:
    """Create a folder with mode 0700; close one that exists, and the files directly in it.

    Raises OSError if it cannot be created.
    """
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    close_to_others(folder)
    for entry in folder.iterdir():
        close_to_others(entry)


def close_to_others(path: Path) -> None:
    """Take away what group and others may do with a file or folder, and log that; not of links."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode) or not status.st_mode & _OTHERS:
        return
    mode = stat.S_IMODE(status.st_mode)
    try:
        path.chmod(mode & ~_OTHERS)
    except OSError as error:
        log.error(
            "file stays open to other users; choose another data folder",
            path=str(path),
            mode=f"{mode:04o}",
            error=error.strerror,
        )
    else:
        log.warning("file was open to other users; closed", path=str(path), mode=f"{mode:04o}")


def create_private_file(path: Path) -> None:
    """Create an empty file with mode 0600 if there is none; close one that exists."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
    close_to_others(path)
