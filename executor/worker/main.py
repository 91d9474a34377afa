"""The worker process: a fresh interpreter under the numeric profile, warm with the last model.

Started by `process` as `python -m executor.worker.main FD`. Over that socket it receives its
configuration, sends `WorkerReady`, and then runs the jobs that it receives, one at a time or, as
`{"together": jobs}`, several of one model at once. The message `{"stop": name}` ends the job of
that name between two steps. The process ends when the socket closes, also in the middle of a job,
so that no worker outlives its parent.
"""

import dataclasses
import json
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from executor.determinism.compute_class import WorkerKind
from executor.models.folders import ModelFolders
from executor.sandbox import confine
from executor.tasks.numba_cache import kernels
from executor.worker.messages import WorkerReady
from executor.worker.runner import POP2PIANO, Backend, JobMessage, JobRunner, send


def receive_jobs(
    connection: "Connection[Any, Any]",
    jobs: "queue.SimpleQueue[Sequence[JobMessage]]",
    stop: Callable[[str], None],
) -> None:
    """Queue the jobs that the parent sends, and stop those that it says.

    Ends this process when the parent closes the socket.
    """
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            # Not sys.exit, which ends this thread only, while the main thread may be computing.
            os._exit(0)
        if "stop" in message:
            stop(message["stop"])
        else:
            jobs.put(message.get("together", [message]))


def backend_of(kind: WorkerKind, threads: int) -> Backend:
    """Return what computes the jobs of a class. Imports what it needs."""
    if kind.engine == "helium" and kind.task == POP2PIANO:
        from executor.worker.backends.piano import PianoBackend

        return PianoBackend(threads)
    if kind.engine == "helium":
        from executor.worker.backends.music import MusicBackend

        return MusicBackend(threads)
    from executor.worker.backends.transformers import TransformersBackend

    return TransformersBackend(kind.device)


def main() -> None:
    """Serve until the parent closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the parent
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    config = json.loads(connection.recv_bytes())
    folders = [Path(folder) for folder in config["folders"]]
    # Before the first thread starts, because the sandbox does not reach threads that run already,
    # and before anything is imported that computes or reads what strangers wrote.
    memory, kind = config["memory"], WorkerKind(**config["kind"])
    # Libraries ask where temporary files go. There is no such place here, so nothing is tried.
    tempfile.tempdir = str(Path.cwd())
    if config["compiles"]:
        writable = Path(os.environ["NUMBA_CACHE_DIR"])
        sandbox = confine.confine(folders, memory, kind.device, writable)
        kernels.compile_all()
        send(connection, WorkerReady({}, True, "", sandbox))
        return
    kernels.use_compiled_only()
    sandbox = confine.confine(folders, memory, kind.device)
    jobs: queue.SimpleQueue[Sequence[JobMessage]] = queue.SimpleQueue()
    runner = JobRunner(connection, ModelFolders(folders), backend_of(kind, config["threads"]))
    threading.Thread(target=receive_jobs, args=(connection, jobs, runner.stop), daemon=True).start()
    send(connection, dataclasses.replace(runner.prepare(), sandbox=sandbox))
    while True:
        together = jobs.get()
        confine.extend_cpu_limit(confine.CPU_SECONDS * runner.threads * len(together))
        runner.run_all(together)


if __name__ == "__main__":
    main()
