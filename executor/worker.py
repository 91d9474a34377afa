"""The child process: a fresh interpreter under the profile, warm with the last model.

Started by `child` as `python -m executor.worker FD`. It talks over that one socket, in JSON
messages: first it is told where things are, then it says that it is ready, then jobs come one at a
time. It ends when the socket closes, also in the middle of a job: no worker outlives its parent.
"""

import gc
import json
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rfc8785

from executor import fingerprint, profile, runtime, selftest
from executor.errors import Abstained, Failed, ModelRefused, ProfileViolated, exhausted
from executor.models import EMBEDDED, SHIPPED, ModelFolders

if TYPE_CHECKING:
    from executor.tasks.text_to_music import Loaded

TRACE_LIMIT = 8_192  # bytes of a trace (specification, section 4)
STEP = 0.01  # smallest change of progress that is told

Message = dict[str, Any]


class Worker:
    """Executes jobs one after another; keeps the last model that it loaded."""

    def __init__(self, connection: "Connection[Any, Any]", folders: ModelFolders) -> None:
        self._connection = connection
        self._folders = folders
        self._key: tuple[object, ...] = ()
        self._loaded: Loaded | None = None
        self._runtime: dict[str, object] = {}
        self._told = -1.0

    def ready(self) -> Message:
        """Fix the profile, import what computes, run the self-test."""
        try:
            profile.fix()
            probe, reason = selftest.check(self._render)
        except (ProfileViolated, ModelRefused) as error:
            return {"kind": "ready", "runtime": {}, "ok": False, "reason": str(error)}
        self._runtime = runtime.fingerprint(probe)
        return {"kind": "ready", "runtime": self._runtime, "ok": not reason, "reason": reason}

    def run(self, order: Message) -> Message:
        """Execute one job and say what it came to."""
        try:
            return self._outcome(order)
        except Abstained as error:
            return {"kind": "abstained", "reason": error.reason, "detail": error.detail}
        except (MemoryError, RuntimeError, OSError) as error:
            if not exhausted(error):
                raise
            return {"kind": "abstained", "reason": "out-of-memory", "detail": str(error)}

    def _outcome(self, order: Message) -> Message:
        if order["task_kind"] != "text-to-music":
            raise Abstained("model-missing", f"no executor for {order['task_kind']}")
        started = time.monotonic()
        self._told = -1.0
        tokens: list[list[str]] = []
        try:
            loaded = self._load(order["model"], order["args"])
            outputs, tokens = self._generated(loaded, order)
            outcome: dict[str, object] = {"result": {"outputs": outputs}}
        except Failed as failure:
            outcome = {"error": failure.code}
        trace = {
            "runtime": self._runtime,
            "weights": order["model"]["digest"],
            "tokens": tokens,
            "seconds": round(time.monotonic() - started, 3),
        }
        return {"kind": "done", "outcome": outcome, "trace": bounded(trace)}

    def _generated(
        self, loaded: "Loaded", order: Message
    ) -> tuple[list[dict[str, object]], list[list[str]]]:
        """The manifest's outputs, their files written, and the token digests of each."""
        from executor.tasks import text_to_music

        sounds = text_to_music.sounds(loaded, order["args"], self._progress)
        waveforms = [fingerprint.waveform(sound.audio) for sound in sounds]
        outputs = []
        for sound, frames, path in zip(sounds, waveforms, paths(order, len(sounds)), strict=True):
            fingerprint.write(frames, path)
            outputs.append(fingerprint.described(frames, sound.sampling_rate))
        return outputs, [list(sound.tokens) for sound in sounds]

    def _load(self, model: Mapping[str, str], args: Mapping[str, Any]) -> "Loaded":
        folder = self._folders.find(model["id"], model["revision"], model["digest"])
        try:
            return self._warm(
                folder, model["digest"], args.get("dtype") or "auto", args.get("quantize_bits")
            )
        except ModelRefused as refusal:
            raise Abstained("model-missing", str(refusal)) from refusal

    def _warm(self, folder: Path, digest: str, dtype: str, bits: int | None) -> "Loaded":
        from executor.tasks import text_to_music

        key = (folder, digest, dtype, bits)
        if self._loaded is None or self._key != key:
            self._drop()
            self._loaded = text_to_music.load(folder, dtype, bits)
            self._key = key
        return self._loaded

    def _drop(self) -> None:
        self._loaded, self._key = None, ()
        gc.collect()

    def _render(self, prompt: str, seed: int, fresh: bool) -> str:
        from executor.tasks import text_to_music

        if fresh:
            self._drop()
        folder = SHIPPED / EMBEDDED
        loaded = self._warm(folder, self._folders.digest(folder), "float32", None)
        limit = {"max_new_tokens": selftest.TOKENS}
        args = {"prompt": prompt, "seed": seed, "generation_config": limit}
        (sound,) = text_to_music.sounds(loaded, args, lambda _: None)
        described = fingerprint.described(fingerprint.waveform(sound.audio), sound.sampling_rate)
        return str(described["sha256"])

    def _progress(self, share: float) -> None:
        if share - self._told >= STEP or share == 1.0:
            self._told = share
            send(self._connection, {"kind": "progress", "share": share})


def paths(order: Message, count: int) -> list[Path]:
    """Where the outputs of a job go; `pool.files` knows the same names."""
    return [Path(f"{order['stem']}-{place}.f32") for place in range(count)]


def bounded(trace: dict[str, Any]) -> dict[str, Any]:
    """The trace within its limit: of a long generation the first token digests are kept."""
    while len(rfc8785.dumps(trace)) > TRACE_LIMIT:
        shorter = [blocks[: len(blocks) // 2] for blocks in trace["tokens"]]
        trace = {**trace, "tokens": shorter, "tokens_complete": False}
    return trace


def send(connection: "Connection[Any, Any]", message: Message) -> None:
    """Tell the parent; `OSError` if it is gone."""
    connection.send_bytes(json.dumps(message).encode())


def listen(connection: "Connection[Any, Any]", orders: "queue.SimpleQueue[Message]") -> None:
    """Pass on what the parent says; end the process at once when it is gone."""
    while True:
        try:
            orders.put(json.loads(connection.recv_bytes()))
        except (EOFError, OSError):
            os._exit(0)


def main() -> None:
    """Serve until the parent closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's to handle
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(connection, orders), daemon=True).start()
    told = orders.get()
    if (limit := told["memory"]) is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    worker = Worker(connection, ModelFolders([Path(folder) for folder in told["folders"]]))
    send(connection, worker.ready())
    while True:
        send(connection, worker.run(orders.get()))


if __name__ == "__main__":
    main()
