"""The child process: a fresh interpreter under the profile, warm with the last model.

Started by `child` as `python -m executor.worker.main FD`. It talks over that one socket, in JSON
messages: first it is told where things are, then it says that it is ready, then jobs come one at a
time. It ends when the socket closes, also in the middle of a job: no worker outlives its parent.
"""

import gc
import hashlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from executor.audio import manifest
from executor.determinism import compute_class, profile, self_test
from executor.errors import (
    Abstained,
    ModelRefused,
    ProfileViolated,
    TaskFailed,
    is_memory_error,
    printable_detail,
)
from executor.models.config import own_dtype
from executor.models.folders import EMBEDDED, SHIPPED, ModelFolders, configuration
from executor.sandbox import confine
from protocol.constants import TRACE_LIMIT
from protocol.wire.encoding import canonical
from protocol.wire.messages import Abstention

if TYPE_CHECKING:
    from executor.tasks.token_trace import TokenTrace

KINDS = (TEXT_TO_MUSIC, POP2PIANO) = ("text-to-music", "pop2piano")
STEP = 0.01  # smallest change of progress that is told
EVERY = 0.05  # seconds between tellings: each wakes the parent, up to 0.3 ms taken from computing

Message = dict[str, Any]


class JobRunner:
    """Executes jobs one after another; keeps the last model that it loaded."""

    def __init__(
        self,
        connection: "Connection[Any, Any]",
        folders: ModelFolders,
        device: profile.Device = "cpu",
    ) -> None:
        self._connection = connection
        self._device = device
        self._folders = folders
        self._key: tuple[object, ...] = ()
        self._loaded: Any = None
        self._runtime: dict[str, object] = {}
        self._told, self._told_at = -1.0, 0.0

    def ready(self) -> Message:
        """Fix the profile, import what computes, run the self-test."""
        try:
            profile.fix(self._device)
            probe, reason = self_test.check(self._render)
        except (ProfileViolated, ModelRefused) as error:
            return {"kind": "ready", "runtime": {}, "ok": False, "reason": str(error)}
        self._runtime = compute_class.describe_runtime(probe, self._device)
        return {"kind": "ready", "runtime": self._runtime, "ok": not reason, "reason": reason}

    def run(self, order: Message) -> Message:
        """Execute one job and say what it came to."""
        try:
            return self._outcome(order)
        except Abstained as error:
            return {"kind": "abstained", "reason": error.reason, "detail": error.detail}
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_memory_error(error):
                raise
            return {"kind": "abstained", "reason": "out-of-memory", "detail": str(error)}

    def _outcome(self, order: Message) -> Message:
        if order["task_kind"] not in KINDS:
            raise Abstained(Abstention.MODEL_MISSING, f"no executor for {order['task_kind']}")
        check(order)
        started = time.monotonic()
        self._told, self._told_at = -1.0, 0.0
        tokens: list[TokenTrace] = []
        why: dict[str, object] = {}
        try:
            made, tokens = self._generated(self._load(order), order)
            entries = manifest.write_outputs(made, Path(order["stem"]))
            outcome: dict[str, object] = {"result": {"outputs": entries}}
        except TaskFailed as failure:
            outcome = {"error": failure.code}
            detail = printable_detail(failure.detail)
            why = {"detail": detail} if detail else {}
        trace = {
            "runtime": self._runtime,
            "weights": order["model"]["digest"],
            "tokens": [list(each.digests) for each in tokens],
            "steps": [list(each.steps) for each in tokens],
            "seconds": round(time.monotonic() - started, 3),
            **why,
        }
        return {"kind": "done", "outcome": outcome, "trace": bounded(trace)}

    def _generated(
        self, loaded: Any, order: Message
    ) -> "tuple[Iterable[manifest.OutputFile], list[TokenTrace]]":
        """What a job made, and what is told of the tokens; nothing can fail after this."""
        if order["task_kind"] == POP2PIANO:
            from executor.tasks import pop2piano

            paths = [Path(path) for path in order["inputs"]]
            covers = pop2piano.covers(loaded, order["args"], paths, self._progress)
            made = manifest.cover_outputs([cover.notes for cover in covers])
            return made, [cover.tokens for cover in covers]
        from executor.tasks import text_to_music

        sounds = text_to_music.sounds(loaded, order["args"], self._progress)
        waveforms = [
            (manifest.canonical_frames(sound.audio), sound.sampling_rate) for sound in sounds
        ]
        return [manifest.waveform_output(*each) for each in waveforms], [
            sound.tokens for sound in sounds
        ]

    def _load(self, order: Message) -> Any:
        model, args = order["model"], order["args"]
        folder = self._folders.find(model["id"], model["revision"], model["digest"])
        if where := self._folders.first_nan_tensor(folder):
            raise TaskFailed("non-finite-output", f"NaN in {where}")
        try:
            dtype = precision(folder, args.get("dtype"))
            bits = args.get("quantize_bits")
            return self._warm(order["task_kind"], folder, model["digest"], dtype, bits)
        except ModelRefused as refusal:
            raise Abstained(Abstention.MODEL_MISSING, str(refusal)) from refusal

    def _warm(self, kind: str, folder: Path, digest: str, dtype: str, bits: int | None) -> Any:
        key = (kind, folder, digest, dtype, bits)
        if self._loaded is None or self._key != key:
            self._drop()
            if bits is not None:
                profile.fix_quantization()
            self._loaded = loader(kind, self._device)(folder, dtype, bits)
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
        loaded = self._warm(TEXT_TO_MUSIC, folder, self._folders.digest(folder), "float32", None)
        limit = {"max_new_tokens": self_test.TOKENS}
        args = {"prompt": prompt, "seed": seed, "generation_config": limit}
        (sound,) = text_to_music.sounds(loaded, args, lambda _: None)
        frames = manifest.canonical_frames(sound.audio)
        return hashlib.sha256(frames.tobytes()).hexdigest()

    def _progress(self, share: float) -> None:
        now = time.monotonic()
        if share == 1.0 or (share - self._told >= STEP and now - self._told_at >= EVERY):
            self._told, self._told_at = share, now
            send(self._connection, {"kind": "progress", "share": share})


def loader(kind: str, device: profile.Device) -> Callable[[Path, str, int | None], Any]:
    """What loads a model for jobs of a kind; nothing of a kind is imported before its first job."""
    if kind == POP2PIANO:
        from executor.tasks import pop2piano

        return pop2piano.load
    from executor.tasks import text_to_music

    return lambda folder, dtype, bits: text_to_music.load(folder, dtype, bits, device)


def precision(folder: Path, dtype: str | None) -> str:
    """What a model is loaded in, by torch's name: of "auto" and null the model's own."""
    if dtype in (None, "auto"):
        return own_dtype(configuration(folder, "config.json"))
    return str(dtype)


def check(order: Message) -> None:
    """Raise `Abstained` (input-missing) unless the inputs are those that the args name."""
    named = [audio["sha256"] for audio in order["args"].get("audio", ())]
    found = []
    for path in order["inputs"]:
        with Path(path).open("rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    if found != named:
        raise Abstained(Abstention.INPUT_MISSING, f"the inputs are {found}, the task names {named}")


def bounded(trace: dict[str, Any]) -> dict[str, Any]:
    """The trace within its limit: of a long generation the first steps, then digests, are kept."""
    while len(canonical(trace)) > TRACE_LIMIT:
        if any(trace["steps"]):
            trace = {**trace, "steps": halved(trace["steps"])}
        else:
            trace = {**trace, "tokens": halved(trace["tokens"]), "tokens_complete": False}
    return trace


def halved(sequences: list[list[str]]) -> list[list[str]]:
    """The first half of each sequence's blocks."""
    return [blocks[: len(blocks) // 2] for blocks in sequences]


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
    told = json.loads(connection.recv_bytes())
    folders = [Path(folder) for folder in told["folders"]]
    # Before the first thread is started, and before anything that computes is imported.
    state = confine.confine(folders, Path(told["scratch"]), told["memory"], told["device"])
    orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(connection, orders), daemon=True).start()
    worker = JobRunner(connection, ModelFolders(folders), told["device"])
    send(connection, {**worker.ready(), "sandbox": state})
    while True:
        order = orders.get()
        confine.extend_cpu_limit()
        send(connection, worker.run(order))


if __name__ == "__main__":
    main()
