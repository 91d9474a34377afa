"""One worker process, as its supervisor holds it: start it, exchange messages with it, kill it.

Messages go over a socket pair as `multiprocessing.connection.Connection` frames them: four bytes of
length, big-endian, then the content. The worker's end is such a connection. This end reads the
frames itself, because `recv_bytes` waits without a timeout once a frame has begun, and a worker
that was taken over could stop in the middle of one.
"""

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from executor.determinism import profile
from executor.determinism.compute_class import TRANSFORMERS, WorkerKind
from executor.worker.messages import MESSAGE_LIMIT, WorkerMessage, decode_message
from protocol.errors import Rejected
from schemas.errors import HeliumError, printable

# The worker's home in the scratch folder, where libraries keep their caches.
HOME = "home"
# -P: Python imports nothing from the working folder, which the worker may write to.
ARGUMENTS = ("-P", "-m", "executor.worker.main")
# Bytes that the worker prints which are kept for `WorkerDied`: the end of a traceback.
PRINTED_BYTES = 4_096
# How Python begins to print an error that nothing caught.
TRACEBACK = "Traceback (most recent call last)"
# Bytes that it may print during a job; reading an endless stream would cost this process as much as
# the worker.
MAX_PRINTED_BYTES = 1_048_576
# Bytes of an output that are read at once.
PIECE_BYTES = 262_144
# An honest worker has at most 70 threads: those of the engine, and a few more. No limit of the
# kernel counts those of one process only.
MAX_THREADS = 256
# Between two looks at the worker's threads.
WATCH_SECONDS = 0.25
# A worker whose socket is closed gets so long to end; then it is killed.
EXIT_SECONDS = 2.0
# A message to the worker fits into the socket's buffer; only a worker that never reads delays it.
SEND_SECONDS = 10.0


class WorkerDied(HeliumError):
    """The worker has ended, or sent an invalid message; the text says which."""


class WorkerProcess:
    """A running worker. One thread receives its messages; any thread may send to it or kill it."""

    def __init__(
        self,
        folders: Sequence[Path],
        scratch: Path,
        memory: int | None,
        kind: WorkerKind = TRANSFORMERS,
        threads: int = 1,
        *,
        compiles: bool = False,
    ) -> None:
        """Start a worker, with the numeric profile as its environment.

        It may read `folders` and `scratch`, and write nothing (`sandbox.confine`). `memory` limits
        its address space in bytes; None means all that the machine has. `threads` are those of the
        engine; they decide no bits. With `compiles` it only compiles kernels, and writes to their
        folder (`tasks.numba_cache`).
        """
        home = scratch / HOME
        for place in profile.PLACES.values():
            (home / place).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket, worker_socket = socket.socketpair()
        # Closed here, only the worker holds it: its death then ends every read of this end.
        with worker_socket:
            self._process = subprocess.Popen(
                [sys.executable, *ARGUMENTS, str(worker_socket.fileno())],
                env=profile.child_environment(home, kind.device),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[worker_socket.fileno()],
                # A terminal's signals then reach the parent only, and `kill` all that it started.
                start_new_session=True,
            )
        # Two threads send: the one that runs a job, and the one that stops it.
        self._sending = threading.Lock()
        self._printed, self._printed_bytes = b"", 0
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._read_printed, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._watch_threads, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        with contextlib.suppress(OSError):  # a worker that has ended: `receive` reports it
            self.send(
                {
                    "folders": [str(folder) for folder in (*folders, scratch)],
                    "memory": memory,
                    "kind": asdict(kind),
                    "threads": threads,
                    "compiles": compiles,
                }
            )

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def send(self, message: Mapping[str, object]) -> None:
        """Send a JSON message. Raises `OSError` if the worker has ended or does not read."""
        content = json.dumps(message).encode()
        with self._sending:
            self._printed_bytes = 0
            self._socket.settimeout(SEND_SECONDS)
            self._socket.sendall(struct.pack("!i", len(content)) + content)

    def receive(self, deadline: float) -> WorkerMessage:
        """Return the next message; `deadline` is a time of `time.monotonic`.

        Raises `TimeoutError` at the deadline, also in the middle of a message, and `WorkerDied` if
        the worker has ended or what it sent is not a message.
        """
        try:
            (length,) = struct.unpack("!i", self._receive_bytes(4, deadline))
            # Before the content is read: the worker chooses the length.
            if not 0 < length <= MESSAGE_LIMIT:
                raise WorkerDied(f"the worker announced a message of {length} bytes")
            return decode_message(self._receive_bytes(length, deadline))
        except Rejected as rejected:
            raise WorkerDied(f"the worker sent an invalid message: {rejected}") from rejected

    def receive_output(self, path: Path, size: int, deadline: float) -> str:
        """Write the `size` bytes that follow an output's message to a new file.

        Returns their SHA-256. Raises as `receive` does, and `OSError` if the file cannot be
        written.
        """
        digest = hashlib.sha256()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123  # a descriptor
            while size:
                piece = self._receive_piece(min(size, PIECE_BYTES), deadline)
                size -= len(piece)
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest()

    def quiet(self) -> bool:
        """Return whether the worker runs and has sent nothing that was not received."""
        return self.alive() and not select.select([self._socket], [], [], 0)[0]

    def alive(self) -> bool:
        """Return whether the process still runs."""
        if self._process.returncode is not None:
            return False
        # It stays a zombie, and its number its own, until `dispose`: `kill` hits no other process.
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, options) is None

    def kill(self) -> None:
        """End the process, and what it started, now; harmless if it has ended. From any thread."""
        if self._process.returncode is None:
            self._kill_group()

    def dispose(self) -> None:
        """Kill the process and release everything. From the thread that exchanges messages."""
        self.kill()
        self._process.wait()
        self._ended.set()
        for thread in self._threads:
            # Not for ever: a process that left the group could hold the pipe open.
            thread.join(EXIT_SECONDS)
        self._socket.close()
        if self._process.stdout is not None and not self._threads[0].is_alive():
            self._process.stdout.close()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _receive_bytes(self, size: int, deadline: float) -> bytes:
        received = bytearray()
        while len(received) < size:
            received += self._receive_piece(size - len(received), deadline)
        return bytes(received)

    def _receive_piece(self, size: int, deadline: float) -> bytes:
        """Return at most `size` bytes. Raises TimeoutError, or WorkerDied at the socket's end."""
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        # Anew for each piece: one byte at a time must not prolong the deadline.
        self._socket.settimeout(seconds)
        try:
            piece = self._socket.recv(size)
        except ConnectionError as error:
            raise WorkerDied(self._exit_report()) from error
        if not piece:
            raise WorkerDied(self._exit_report())
        return piece

    def _read_printed(self, stream: IO[bytes]) -> None:
        while piece := stream.read1(PRINTED_BYTES):  # type: ignore[attr-defined]
            self._printed = (self._printed + piece)[-PRINTED_BYTES:]
            self._printed_bytes += len(piece)
            if self._printed_bytes > MAX_PRINTED_BYTES:
                self.kill()

    def _watch_threads(self) -> None:
        """Kill the worker if it starts too many threads: they would starve the whole machine."""
        status = Path(f"/proc/{self.pid}/status")
        while not self._ended.wait(WATCH_SECONDS):
            try:
                lines = status.read_text(errors="replace").splitlines()
            except OSError:
                return
            counts = [int(line.split()[1]) for line in lines if line.startswith("Threads:")]
            if counts and counts[0] > MAX_THREADS:
                self._printed = f"it started {counts[0]} threads".encode()
                self.kill()
                return

    def _exit_report(self) -> str:
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._kill_group()  # at once, while the number is still that of its group
        self._threads[0].join(EXIT_SECONDS)
        # A terminal or a log would obey what an untrusted process prints.
        printed = printable(error_first(self._printed.decode(errors="replace"))).strip()
        return f"the worker died, exit code {code}{': ' if printed else ''}{printed}"


def error_first(printed: str) -> str:
    """Return what a process printed; of a traceback first its last line, which is the error."""
    start = printed.find(TRACEBACK)
    if start < 0:
        return printed
    lines = printed[start:].strip().splitlines()
    return f"{lines[-1]} ({' '.join(line.strip() for line in lines[:-1])})"
