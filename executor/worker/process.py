"""One worker process, as its supervisor holds it: start it, exchange messages with it, kill it.

Messages go over a socket pair as `multiprocessing.connection.Connection` frames them: four bytes of
length, big-endian, then the content. The worker's end is such a connection. This end reads the
frames itself, because `recv_bytes` waits without a timeout once a frame has begun, and a worker
that was taken over could stop in the middle of one.
"""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from executor.determinism import profile
from executor.worker.messages import MESSAGE_LIMIT, WorkerMessage, decode_message
from protocol.errors import Rejected
from schemas.errors import HeliumError

# The worker's home in the scratch folder, where libraries keep their caches.
HOME = "home"
# -P: Python imports nothing from the working folder, which the worker may write to.
ARGUMENTS = ("-P", "-m", "executor.worker.main")
# Bytes of the worker's output that are kept for `WorkerDied`: the end of a traceback.
OUTPUT_BYTES = 4_096
# A worker whose socket is closed gets so long to end; then it is killed.
EXIT_SECONDS = 2.0
# A message to the worker fits into the socket's buffer; only a worker that never reads delays it.
SEND_SECONDS = 10.0


class WorkerDied(HeliumError):
    """The worker has ended, or sent an invalid message; the text says which."""


class WorkerProcess:
    """A running worker. One thread exchanges messages with it; any thread may kill it."""

    def __init__(
        self,
        folders: Sequence[Path],
        scratch: Path,
        memory: int | None,
        device: profile.Device = "cpu",
    ) -> None:
        """Start a worker, with the numeric profile as its environment.

        It may read `folders` and write to `scratch`, and little else (`sandbox.confine`). `memory`
        limits its address space in bytes; None means all that the machine has.
        """
        home = scratch / HOME
        home.mkdir(parents=True, exist_ok=True)
        self._socket, worker_socket = socket.socketpair()
        # Closed here, only the worker holds it: its death then ends every read of this end.
        with worker_socket:
            self._process = subprocess.Popen(
                [sys.executable, *ARGUMENTS, str(worker_socket.fileno())],
                env=profile.child_environment(home, device),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[worker_socket.fileno()],
                start_new_session=True,  # a terminal's signals then reach the parent only
            )
        self._output = b""
        self._output_reader = threading.Thread(
            target=self._read_output, args=(self._process.stdout,), daemon=True
        )
        self._output_reader.start()
        with contextlib.suppress(OSError):  # a worker that has ended: `receive` reports it
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

    def send(self, message: Mapping[str, object]) -> None:
        """Send a JSON message. Raises `OSError` if the worker has ended or does not read."""
        content = json.dumps(message).encode()
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
        except (EOFError, ConnectionError) as error:
            raise WorkerDied(self._exit_report()) from error
        except Rejected as rejected:
            raise WorkerDied(f"the worker sent an invalid message: {rejected}") from rejected

    def alive(self) -> bool:
        """Return whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process now; harmless if it has ended. From any thread."""
        self._process.kill()

    def dispose(self) -> None:
        """Kill the process and release everything. From the thread that exchanges messages."""
        self.kill()
        self._process.wait()
        self._output_reader.join()
        self._socket.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _receive_bytes(self, size: int, deadline: float) -> bytes:
        received = bytearray()
        while len(received) < size:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                raise TimeoutError
            # Anew for each piece: one byte at a time must not prolong the deadline.
            self._socket.settimeout(seconds)
            piece = self._socket.recv(size - len(received))
            if not piece:
                raise EOFError
            received += piece
        return bytes(received)

    def _read_output(self, stream: IO[bytes]) -> None:
        while piece := stream.read1(OUTPUT_BYTES):  # type: ignore[attr-defined]
            self._output = (self._output + piece)[-OUTPUT_BYTES:]

    def _exit_report(self) -> str:
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._output_reader.join()
        output = self._output.decode(errors="replace").strip()
        return f"the worker died, exit code {code}{': ' if output else ''}{output}"
