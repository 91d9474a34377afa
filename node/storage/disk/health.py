"""Whether the database can be written, for the node's status; and a log line when that changes."""

import sqlite3

from node.log import get_logger
from node.storage.disk.reserve import ENOUGH_BYTES, LOW_BYTES, DiskReserve

log = get_logger("journal")

_GOES_ON = "this node goes on by itself then"
_FULL = f"the disk with the data folder is full: free space on it; {_GOES_ON}"
_NOT_WRITABLE = (
    f"the data folder cannot be written: make its files and its file system writable; {_GOES_ON}"
)
_DAMAGED = "the database is damaged: stop this node; its next start says what to do"
# Sentences by the beginning of SQLite's name for an error. An error with another name is a mistake
# in this program, not a fault of the disk. They fit into an answer to `hello`.
_FAULTS = {
    "SQLITE_BUSY": f"another program holds the node's database: close that one; {_GOES_ON}",
    "SQLITE_CANTOPEN": _NOT_WRITABLE,
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_FULL": _FULL,
    "SQLITE_IOERR": (
        "the disk with the data folder is full, over its quota, read-only or failing: free space "
        f"on it, or see the system's log; {_GOES_ON}"
    ),
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_READONLY": _NOT_WRITABLE,
}
# Errors that free space may help against. SQLite reports a quota as an I/O error.
_NO_SPACE = ("SQLITE_FULL", "SQLITE_IOERR")


class DiskHealth:
    """What is wrong with the disk of one database.

    A fault begins with a failed write or an almost full disk. It ends with the first write that
    succeeds while the reserve is whole: until then, writes use up the reserve.
    """

    def __init__(self, reserve: DiskReserve | None = None) -> None:
        """`reserve` is None for a database in memory."""
        self._reserve = reserve
        self.fault: str | None = None

    def report(self, error: sqlite3.Error, **fields: object) -> None:
        """Log a step that failed, unless the fault has been logged already."""
        if not self.note_failure(error):
            log.error("journal write failed", error=str(error), **fields)

    def note_failure(self, error: sqlite3.Error) -> bool:
        """Take an error of the database; return whether it is a fault of the disk or the file."""
        name = getattr(error, "sqlite_errorname", "")
        # The write that is made again is then larger than what was free, or there is a quota.
        if self._reserve and name.startswith(_NO_SPACE):
            self._reserve.give_up_part()
        faults = [text for code, text in _FAULTS.items() if name.startswith(code)]
        if faults:
            self._begin(faults[0], str(error))
        return bool(faults)

    def prepare_write(self) -> None:
        """Make room for a write, from the reserve, while the disk is full."""
        if self._reserve and self.fault is not None:
            self._reserve.make_room()

    def note_write(self) -> None:
        """Take that a write succeeded."""
        if self.fault is not None and (not self._reserve or self._reserve.refill(ENOUGH_BYTES)):
            self.fault = None
            log.warning("journal can be written again")  # as the beginning, at any usual level

    def check_space(self) -> None:
        """Note a disk that is almost full: outputs would fail to be stored before the journal."""
        if self.fault is None and self._reserve and not self._reserve.refill(LOW_BYTES):
            self._begin(_FULL, "the disk is almost full")

    def _begin(self, fault: str, error: str) -> None:
        is_new, self.fault = self.fault != fault, fault
        if is_new:
            self.prepare_write()  # the log may be on the same disk
            log.error("journal cannot be written", reason=fault, error=error)
