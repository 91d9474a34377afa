"""One worker process, as its parent holds it: started, spoken with, killed."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from executor.determinism import profile
from schemas.errors import HeliumError

HOME = "home"  # in the scratch folder: the worker's own, where libraries keep caches
TAIL = 4_096  # bytes of what the worker printed that are kept, for error details
ARGUMENTS = ("-P", "-m", "executor.worker.main")  # -P: nothing is imported from the working folder
LAST_WORDS = 2.0  # seconds between closing its socket and the end of its process
MESSAGE_LIMIT = 4_194_304  # bytes; the largest, an outcome, has 640 chunk hashes

Message = dict[str, Any]


class WorkerDied(HeliumError):
    """The worker is gone; the message is the end of what it printed."""


class WorkerProcess:
    """A running worker. One thread speaks with it; any thread may kill it."""

    def __init__(
        self,
        folders: Sequence[Path],
        scratch: Path,
        memory: int | None,
        device: profile.Device = "cpu",
    ) -> None:
        """Start it, with the profile as its environment. `memory`: bytes of address space.

        It may read `folders` and write to `scratch`, and little else (`sandbox`).
        """
        home = scratch / HOME
        home.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *ARGUMENTS, str(theirs.fileno())],
                env=profile.child_environment(home, device),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # signals of a terminal go to the parent alone
            )
        self._connection: Connection[Any, Any] = Connection(ours.detach())
        self._printed = b""
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), daemon=True
        )
        self._reader.start()
        with contextlib.suppress(OSError):  # already dead: `receive` will tell
            self.send(
                {
                    "folders": [str(folder) for folder in folders],
                    "scratch": str(scratch),
                    "memory": memory,
                    "device": device,
                }
            )

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Raises `OSError` if the worker is gone."""
        self._connection.send_bytes(json.dumps(message).encode())

    def receive(self, deadline: float) -> Message:
        """Return the next message; `deadline` is monotonic. Raises TimeoutError or WorkerDied."""
        try:
            if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            received = self._connection.recv_bytes(MESSAGE_LIMIT)
        except (EOFError, ConnectionError) as error:
            raise WorkerDied(self._exit_report()) from error
        try:
            return dict(json.loads(received))
        except (ValueError, TypeError, RecursionError) as error:
            raise WorkerDied(f"the worker said {received[:80]!r}") from error

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it now; harmless if it has ended. From any thread."""
        self._process.kill()

    def dispose(self) -> None:
        """Kill it and give everything back. From the thread that speaks with it."""
        self.kill()
        self._process.wait()
        self._reader.join()
        self._connection.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self, stream: IO[bytes]) -> None:
        while printed := stream.read1(TAIL):  # type: ignore[attr-defined]
            self._printed = (self._printed + printed)[-TAIL:]

    def _exit_report(self) -> str:
        try:
            code = self._process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._reader.join()
        printed = self._printed.decode(errors="replace").strip()
        return f"the worker died, exit code {code}{': ' if printed else ''}{printed}"
