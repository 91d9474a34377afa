"""A worker that was taken over, against the real supervisor: whatever it sends costs one job.

The worker is a process that writes the bytes that its job names, and ends. So every stream of bytes
can be tried: frames that lie about their length, messages in a wrong state, floods, half outputs.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import schemas
from executor.errors import Abstained
from executor.job import Execution, Job, ModelRef
from executor.worker import process
from executor.worker.supervisor import WorkerSupervisor
from protocol.manifest import outputs_of
from tests.executor.conftest import TIMEOUT

# Starts in a moment: it imports next to nothing. It sends `reply` for a job, and ends.
SENDER = r"""
import json, os, struct, sys
fd = int(sys.argv[1])
def receive():
    length = struct.unpack("!i", os.read(fd, 4))[0]
    content = b""
    while len(content) < length:
        content += os.read(fd, length - len(content))
    return json.loads(content)
def send(content):
    while content:
        content = content[os.write(fd, content):]
receive()
ready = b'{"kind":"ready","runtime":{},"ok":true,"reason":"","sandbox":{}}'
send(struct.pack("!i", len(ready)) + ready)
send(bytes.fromhex(receive()["args"]["reply"]))
"""
CONTENT = b"abc" * 22
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ENTRY = {"media": "audio/midi", "sha256": SHA256, "size": 66, "notes": 1, "chunks": [SHA256]}


def frame(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("!i", len(content) if length is None else length) + content


def message(**members: Any) -> bytes:
    return frame(json.dumps(members).encode())


OUTPUT = message(kind="output", size=len(CONTENT)) + CONTENT
DONE = message(kind="done", outcome={"result": {"outputs": [ENTRY]}}, trace={})
PARTS = {
    "progress": message(kind="progress", share=0.5),
    "output": OUTPUT,
    "done": DONE,
    "failed": message(kind="done", outcome={"error": "no-notes"}, trace={}),
    "abstained": message(kind="abstained", reason="model-missing", detail="x"),
    "ready": message(kind="ready", runtime={}, ok=True, reason="", sandbox={}),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerSupervisor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "ARGUMENTS", ("-I", "-S", "-c", SENDER))
        supervisor = WorkerSupervisor([], tmp_path_factory.mktemp("hostile"))
        yield supervisor
        supervisor.close()


def result_of(supervisor: WorkerSupervisor, reply: bytes) -> Execution | Abstained:
    """Return what a job comes to whose worker replies with these bytes."""
    order = Job("task", "text-to-music", {"reply": reply.hex()}, ModelRef("x", "1", "0" * 64))
    shares: list[float] = []
    try:
        result: Execution | Abstained = supervisor.run(
            order, timeout=TIMEOUT, progress=shares.append
        )
    except Abstained as abstained:
        result = abstained
    assert all(0 <= share <= 1 for share in shares)
    return result


def check(supervisor: WorkerSupervisor, result: Execution | Abstained) -> None:
    """Check that a result is what the node expects of an executor, and that nothing stays."""
    files: tuple[Path, ...] = ()
    if isinstance(result, Execution):
        schemas.check("outcome", result.outcome)
        files = result.files
        outputs = outputs_of(result.outcome)
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        assert hashes == [output["sha256"] for output in outputs]
    else:
        assert result.detail.isprintable()
        assert len(result.detail) < 10_000
    left = [path for path in supervisor.scratch.rglob("*") if path.is_file()]
    assert left == list(files)
    for path in files:
        path.unlink()


def test_an_honest_reply_is_the_jobs_result(hostile: WorkerSupervisor) -> None:
    result = result_of(hostile, PARTS["progress"] + OUTPUT + DONE)
    assert isinstance(result, Execution)
    check(hostile, result)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        OUTPUT,
        DONE,
        DONE + OUTPUT,
        OUTPUT + OUTPUT + DONE,
        OUTPUT[:-1] + DONE,
        OUTPUT + b"x" + DONE,
        PARTS["ready"],
        PARTS["progress"] * 201,
        frame(b"{}", 2**31 - 1),
        frame(b"{}", -1),
        frame(b"{}", 0),
        frame(b"{" * 50_000),
        frame(b'{"kind":"progress","share":1e400}'),
        frame(b'{"kind":"progress","share":-0.0e-400,"share":1}'),
        frame(b'{"kind":"progress","share":' + b"9" * 5_000 + b"}"),
        frame(b'{"kind":"progress","share":NaN}'),
        frame(rb'{"kind":"abstained","reason":"\ud800","detail":"\udfff"}'),
        frame(b'\xef\xbb\xbf{"kind":"progress","share":1}'),
        frame('{"kind":"progress","share":1}'.encode("utf-16")),
        frame(b'{"kind":"output","size":1e3}') + b"x",
        frame(b"x" * 4_194_304),
        frame(b"\x00" * 64),
    ],
    ids=lambda reply: f"{len(reply)}-{hashlib.sha256(reply).hexdigest()[:6]}",
)
def test_a_broken_reply_is_one_abstention(hostile: WorkerSupervisor, reply: bytes) -> None:
    result = result_of(hostile, reply)
    assert isinstance(result, Abstained)
    assert result.reason == "worker-died"
    check(hostile, result)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)  # fmt: skip
MUTATED = st.builds(
    lambda part, name, value: message(**{**json.loads(PARTS[part][4:]), name: value}),
    st.sampled_from([name for name in PARTS if name != "output"]),
    st.sampled_from(["kind", "share", "outcome", "trace", "reason", "detail", "runtime", "x"]),
    JSON,
)  # fmt: skip
PIECES = (
    st.sampled_from(sorted(PARTS.values()))
    | MUTATED
    | st.binary(max_size=40)
    | st.builds(frame, st.binary(max_size=40), st.none() | st.integers(-(2**31), 2**31 - 1))
)


@given(st.lists(PIECES, max_size=5).map(b"".join))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_reply_is_a_result_or_an_abstention(hostile: WorkerSupervisor, reply: bytes) -> None:
    check(hostile, result_of(hostile, reply))
