"""A database of many tasks that have ended, and a node's start on it.

    python -m scripts.bench_tool.large.settled DATABASE MEMBERS

It opens the database as a node does when it starts, and prints a JSON object: seconds of wall and
of processor time, and the peak of its resident memory beyond that before, in MiB.
"""

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from node.clock import SystemClock
from node.consensus.coordinator import Coordinator
from node.storage.database import open_database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from scripts.bench_tool.large.roster import Roster, generate
from scripts.bench_tool.light.transfer import Memory
from tests.support import fixtures

# What is copied of a task: the columns beside the task's id, which a copy replaces.
_COPIED = {
    "envelopes": ("task", "signer, type, envelope, at"),
    "tasks": ("id", "state, attempt, ended"),
    "salts": ("task", "attempt, salt"),
    "outcomes": ("task", "outcome, trace, after, at"),
    "certificates": ("task", "outcome, document"),
    "conduct": ("task", "attempt, peer, conduct, suspect_from, accepted"),
}
_COPY = "WITH RECURSIVE copies(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < ?)"
# A copy's id: the first 56 characters of the task's, and its number.
_ID = "substr({column}, 1, 56) || printf('%08x', n)"


def fill(source: sqlite3.Connection, path: Path, tasks: int) -> int:
    """Copy a database of ended tasks to a file, and its tasks until there are about so many.

    A copy has the same envelopes under other ids: nothing reads them. Returns the number of tasks.
    """
    target = sqlite3.connect(path, isolation_level=None)
    source.backup(target)
    (count,) = target.execute("SELECT count(*) FROM tasks").fetchone()
    copies = max(0, tasks // count - 1)
    target.execute("BEGIN")
    if copies:
        for table, (column, rest) in _COPIED.items():
            names, values = f"{column}, {rest}", f"{_ID.format(column=column)}, {rest}"
            if table == "envelopes":
                names, values = f"id, {names}", f"randomblob(32), {values}"
            statement = f"INSERT INTO {table} ({names}) SELECT {values} FROM copies, {table}"  # noqa: S608
            target.execute(f"{_COPY} {statement}", (copies,))
    target.execute("COMMIT")
    target.close()
    return int(count * (copies + 1))


def restart(path: Path, members: int) -> dict[str, float]:
    """Return what a node's start on a database costs, in a process of its own."""
    command = [sys.executable, "-P", "-m", "scripts.bench_tool.large.settled"]
    done = subprocess.run([*command, str(path), str(members)], capture_output=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def drop_all(path: Path, roster: Roster, batch: int) -> dict[str, float]:
    """Drop the envelopes of all tasks as a node does; return what that costs."""
    database = open_database(path, roster.network.id)
    coordinator = _coordinator(roster, Journal(database), Ledger(database))
    steps = []
    count = batch
    while count == batch:
        began = time.perf_counter()
        count = coordinator.drop_ended(float("inf"), batch)
        steps.append(time.perf_counter() - began)
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (
        database.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names
    )
    database.close()
    return {
        "longest_step_ms": round(1000 * max(steps), 1),
        "kept_bytes": (pages - free) * size,
        "free_bytes": free * size,
    }


def _coordinator(roster: Roster, journal: Journal, ledger: Ledger) -> Coordinator:
    return Coordinator(roster.network, fixtures.key(0), journal, ledger, SystemClock(), bytes)


def main() -> None:
    """Start on the database that the arguments name."""
    roster = generate(int(sys.argv[2]))
    memory, wall, processor = Memory(), time.perf_counter(), time.process_time()
    database = open_database(Path(sys.argv[1]), roster.network.id)
    journal, ledger = Journal(database), Ledger(database)
    # As `node.app` and the daemon: for the blob store, the open tasks, and the score floors.
    journal.own_outputs()
    journal.open_task_inputs()
    _coordinator(roster, journal, ledger).open()
    ledger.peer_records()
    figures: dict[str, Any] = {
        "wall_s": round(time.perf_counter() - wall, 3),
        "processor_s": round(time.process_time() - processor, 3),
        "memory_mib": round(memory.growth(), 1),
    }
    database.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
