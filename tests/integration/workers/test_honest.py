"""Three honest nodes with real workers: submit, fetch, verify, and invalid requests."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import soundfile
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.client.client import Client
from node.rpc.client import RequestRefused, read_answer
from node.rpc.codec import Status, protocol_id
from node.transport.interface import StreamClosed
from protocol.wire import messages
from protocol.wire.encoding import canonical
from protocol.wire.signing import peer_of, sign
from tests.integration.conftest import ROOT, Running, task
from tests.integration.workers.conftest import VOICE

KEY = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)


@pytest.fixture(scope="module")
def song(three: Running) -> Mapping[str, Any]:
    document: Mapping[str, Any] = three.json("submit", "-", "-o", "a.wav", stdin=json.dumps(task()))
    return document


def test_quorum_agrees_without_dissent(three: Running, song: Mapping[str, Any]) -> None:
    assert song["state"] == "agreed"
    assert {vote["peer"] for vote in song["votes"]} >= set(song["signers"])
    assert len({vote["outcome"] for vote in song["votes"]}) == 1
    assert not any(vote["dissent"] for vote in song["votes"])
    [audio] = song["audio"]
    assert (audio["frames"], audio["channels"], audio["sampling_rate"]) == (16_000, 1, 16_000)


def test_certificate_and_audio_verify_in_a_fresh_process(
    three: Running, song: Mapping[str, Any]
) -> None:
    verified = three.json("verify", song["certificate"], "--audio", "a.wav")
    assert verified["task"] == song["task"]
    assert verified["audio"]["output"] == 0


def test_fetch_returns_the_same_audio(three: Running, song: Mapping[str, Any]) -> None:
    fetched = three.json("fetch", song["task"], "-o", "b.wav")
    assert _digest(three.root / "a.wav") == _digest(three.root / "b.wav")
    assert {v["peer"] for v in fetched["votes"]} == {v["peer"] for v in song["votes"]}


def test_status_and_peers_report_the_agreed_task(three: Running, song: Mapping[str, Any]) -> None:
    status = three.json("status", song["task"])
    assert status["certified"] is True
    assert {node["state"] for node in status["nodes"]} == {"agreed"}
    peers = three.json("peers")
    assert [entry["ready"] for entry in peers["peers"]] == [True] * 3


def test_audio_depends_on_arguments_and_seed_only(three: Running, song: Mapping[str, Any]) -> None:
    flags = ("submit", "-", "--temperature", 0, "--num-return-sequences", 2)
    greedy = three.json(*flags, "-o", "c.wav", stdin=json.dumps(task()))
    assert len(greedy["audio"]) == 2
    three.json("submit", "-", "-o", "d.wav", stdin=json.dumps(task()))
    three.json("submit", "-", "--seed", 43, "-o", "e.wav", stdin=json.dumps(task()))
    sums = {n: _digest(three.root / f"{n}.wav") for n in "acde"}
    assert sums["a"] == sums["d"]
    assert len(set(sums.values())) == 3


def test_task_submitted_with_no_wait_can_be_fetched(three: Running) -> None:
    submitted = three.helium("submit", "-", "--no-wait", stdin=json.dumps(task()))
    assert submitted.returncode == 0, submitted.stderr
    assert three.json("fetch", submitted.stdout.strip(), "-o", "f.wav")["state"] == "agreed"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--max-new-tokens", 2049], "max_new_tokens: 2049 is over this model's limit, 2048"),
        (["--model", VOICE], "args.generation_config.max_new_tokens: this model does not take it"),
    ],
)
def test_invalid_flag_exits_with_4(three: Running, flags: list[object], reason: str) -> None:
    done = three.helium("submit", "-", *flags, stdin=json.dumps(task()))
    assert done.returncode == 4
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_unsupported_dtype_is_rejected_before_submission(three: Running) -> None:
    reason = "args.dtype: this model does not compute in float16, only in float"
    arguments = {"model": VOICE, "prompt": "hello", "seed": 1, "dtype": "float16"}
    done = three.helium("submit", "-", stdin=json.dumps(arguments))
    assert done.returncode == 4
    assert done.stderr.startswith(f"helium: task rejected: {reason}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_seconds_flag_sets_the_duration(three: Running) -> None:
    args = {name: value for name, value in task().items() if name != "generation_config"}
    done = three.helium("submit", "-", "--seconds", 1.5, "-o", "s.wav", stdin=json.dumps(args))
    assert done.returncode == 0, done.stderr
    assert re.search(r"executing \d+% \(\d\.\d of 1\.5 s\)", done.stderr), done.stderr
    assert soundfile.info(three.root / "s.wav").duration == 1.5


def test_task_in_crynux_format_is_accepted(three: Running) -> None:
    """Crynux sends every member of the reference document, with nulls and a top_p of 0.0."""
    file = three.root / "crynux.json"
    file.write_text(CRYNUX)
    song = three.json("submit", file, "-o", "n.wav")
    assert song["state"] == "agreed"
    assert [audio["frames"] for audio in song["audio"]] == [16_000] * 2


CRYNUX = """{
  "model": "helium/embedded-music",
  "prompt": "[INST] a rock song [/INST]",
  "generation_config": {
    "max_new_tokens": 53,
    "do_sample": true,
    "temperature": 0.8,
    "top_k": null,
    "top_p": 0.0,
    "num_return_sequences": 2,
    "guidance_scale": null
  },
  "seed": 42,
  "dtype": "auto",
  "quantize_bits": null
}"""


def test_unknown_task_exits_with_4_and_unreachable_node_with_3(three: Running) -> None:
    unknown = three.helium("status", "0" * 64)
    assert unknown.returncode == 4
    assert unknown.stderr == f"helium: no connected node knows the task {'0' * 64}\n"
    address = _unused_address(three)
    done = three.helium("peers", "--peer", address)
    assert done.returncode == 3
    assert done.stderr == f"helium: no node can be reached: {address}: connection refused\n"


def test_unreachable_peers_are_skipped_silently(three: Running) -> None:
    first, second = three.nodes[:2]
    wrong = first.address.replace(first.peer, second.peer)
    done = three.helium(
        "peers", "--peer", first.address, "--peer", _unused_address(three), "--peer", wrong
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_ctrl_c_prints_how_to_fetch_the_task(three: Running) -> None:
    arguments = json.dumps(task(max_new_tokens=400))
    with _start_helium(three, "submit", "-", "-o", "g.wav") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(arguments)
        process.stdin.close()
        process.stdin = None
        id_ = process.stderr.readline().split()[1]
        process.stderr.readline()  # the waiting has begun
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    *_, last = stderr.splitlines()
    assert last == f"helium: interrupted; the task goes on: helium fetch {id_}"
    assert "Traceback" not in stderr
    assert not (three.root / "g.wav").exists()
    assert three.json("fetch", id_, "-o", "g.wav")["state"] == "agreed"


def _start_helium(three: Running, *arguments: str) -> subprocess.Popen[str]:
    settings = {
        "PYTHONPATH": str(ROOT),
        "HELIUM_NETWORK": str(three.root / "network.json"),
        "HELIUM_PEERS": ",".join(three.daemons.addresses),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "node.cli", *arguments],
        cwd=three.root,
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _unused_address(three: Running) -> str:
    """Return an address on which no node listens."""
    return three.nodes[0].address.replace(f"/{three.nodes[0].port}/", "/1/")


def test_python_example_of_the_readme_runs(three: Running) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    done = three.python("-c", example[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, "(80000, 1) 16000\n", "")
    assert (three.root / "rain.wav").is_file()


# Raw bytes on a stream, which the client of this package never sends.


@pytest_asyncio.fixture
async def client(three: Running) -> AsyncIterator[Client]:
    async with Client.connect(three.network, three.daemons.addresses[:1]) as client:
        yield client


async def _answer(client: Client, payload: bytes) -> Mapping[str, Any]:
    """Send bytes as a submit request, and return what the node answers."""
    [peer] = client.transport.peers()
    stream = await client.transport.open(peer, protocol_id("submit"))
    try:
        await stream.write(payload)
        await stream.close_write()
        return await read_answer(stream, "submit")
    finally:
        await stream.close()


def _framed(payload: bytes) -> bytes:
    length, prefix = len(payload), bytearray()
    while length > 127:
        prefix.append(length & 127 | 128)
        length >>= 7
    return bytes((*prefix, length)) + payload


def _request(network: str, fields: Mapping[str, object]) -> bytes:
    """Return a submit request for a task with some fields of its body replaced, signed."""
    body: dict[str, Any] = dict(
        messages.task_body(
            network, "text-to-music", {}, "music", _now(), 60, "0f" * 16, peer_of(KEY)
        )
    )
    body = {**body, "args": task(), **fields}
    return canonical({"task": sign(body, KEY).document(), "blobs": []})


def _now() -> int:
    return int(time.time() * 1000)


def _without_seed() -> dict[str, object]:
    return {name: value for name, value in task().items() if name != "seed"}


BODIES: list[tuple[dict[str, object], str, str]] = [
    ({"args": _without_seed()}, "invalid-field", "args.seed"),
    ({"args": task(seed=-1)}, "invalid-field", "args.seed: -1"),
    ({"args": task(seed=2**32)}, "invalid-field", "args.seed: 4294967296"),
    ({"args": task(model="acme/none")}, "unknown-model", "acme/none"),
    ({"args": task(max_new_tokens=2049)}, "over-limit", "max_new_tokens: 2049"),
    ({"args": task(model=VOICE)}, "over-limit", "args.generation_config.max_new_tokens: this mod"),
    (
        {"args": task(model=VOICE, generation_config={})},
        "over-limit",
        "args.generation_config: this model takes none",
    ),
    ({"network": "0" * 64}, "wrong-network", "0" * 64),
    ({"created": _now() - 7_200_000}, "expired", "deadline: passed"),
    ({"created": _now() + 7_200_000}, "created-ahead", "created:"),
    ({"odd": 1}, "invalid-field", "body.odd"),
]


@pytest.mark.parametrize(("fields", "reason", "detail"), BODIES)
async def test_invalid_task_is_refused_with_its_reason(
    client: Client, fields: dict[str, object], reason: str, detail: str
) -> None:
    with pytest.raises(RequestRefused) as raised:
        await _answer(client, _framed(_request(client.network.id, fields)))
    assert raised.value.status is Status.INVALID
    assert raised.value.reason == reason
    assert detail in raised.value.detail


RAW: list[tuple[bytes, str]] = [
    (_framed(b"{"), "not JSON"),
    (_framed(b"\xff\xfe"), "not UTF-8"),
    (_framed(b'{"blobs": [], "blobs": []}'), "duplicate member 'blobs'"),
    (_framed(b'{"task": ' + b"[" * 40 + b"]" * 40 + b"}"), "nested deeper than 16"),
    (_framed(b'{"task": NaN}'), "NaN is no JSON number"),
    (b"\xff\xff\xff\xff\x0f", ""),  # a length of 4 GiB without content
]


@pytest.mark.parametrize(("payload", "detail"), RAW)
async def test_malformed_request_is_refused(client: Client, payload: bytes, detail: str) -> None:
    with pytest.raises(RequestRefused) as raised:
        await _answer(client, payload)
    assert raised.value.status is Status.INVALID
    assert detail in raised.value.detail


async def test_altered_task_has_a_bad_signature(client: Client) -> None:
    altered = _request(client.network.id, {}).replace(b"bells in the rain", b"drums in the rain")
    with pytest.raises(RequestRefused) as raised:
        await _answer(client, _framed(altered))
    assert raised.value.reason == "bad-signature"


async def test_truncated_request_gets_no_answer(client: Client) -> None:
    whole = _framed(_request(client.network.id, {}))
    with pytest.raises((StreamClosed, RequestRefused)):
        await _answer(client, whole[:-10])


async def test_nodes_still_agree_after_all_invalid_requests(three: Running, client: Client) -> None:
    three.daemons.check()
    submission = await client.submit("text-to-music", task(prompt="still there"))  # type: ignore[arg-type]
    result = await submission.result()
    assert result.audio.shape == (16_000, 1)
    assert result.sampling_rate == 16_000


def _digest(path: Path) -> str:
    """Return a hash of the samples: the file itself holds the time at which it was written."""
    samples, _ = soundfile.read(path, dtype="float32")
    return hashlib.sha256(samples.tobytes()).hexdigest()
