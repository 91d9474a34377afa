"""The keys, networks and messages that tests share: the same ones in every run."""

import hashlib
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.network import Network
from protocol.wire import codec, messages
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Abstention, Commit, Reveal, Task, Vote, Withdraw
from protocol.wire.signing import peer_of, sign

MODEL = "helium/embedded-music"
PIANO = "helium/tiny-piano"
CLASS = "cpu"
HELIUM, HELIUM_PIANO = "helium", "helium-piano"  # classes of `helium_document`
UNREPLAYED = "helium/unreplayed"  # its model that proves no work
START = 1_750_000_000.0  # Unix seconds at which tests begin


@cache
def key(index: int) -> Ed25519PrivateKey:
    """The key of member `index`. From 1000 on they are of requesters and strangers."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"key %d" % index).digest())


@cache
def peer(index: int) -> str:
    return peer_of(key(index))


@cache
def index_of(member: str) -> int:
    """The index of a peer's key. Raises StopIteration for the peer of another key."""
    index: int = next(i for i in (*range(64), *range(1000, 1100)) if peer(i) == member)
    return index


def key_of(member: str) -> Ed25519PrivateKey:
    return key(index_of(member))


def network_document(members: int = 4, **parameters: Any) -> dict[str, Any]:
    """A network of `members`, each its own operator, with the specification's parameters."""
    defaults = {
        "committee_size": 3,
        "committee_max": 7,
        "commit_grace_seconds": 2,
        "attempt_seconds": 120,
        "max_deadline_seconds": 3600,
        "clock_skew_seconds": 60,
        "max_input_bytes": 33_554_432,
        "max_output_bytes": 134_217_728,
        "follow": 12,
    }
    return {
        "name": "test",
        "version": 2,
        "created": "2026-01-01T00:00:00Z",
        "parameters": defaults | parameters,
        "classes": {CLASS: {"device": "cpu", "torch": "2.13.0"}},
        "models": [
            {
                "id": MODEL,
                "revision": "main",
                "digest": "d" * 64,
                "tasks": ["text-to-music"],
                "limits": {"max_new_tokens": 1503, "num_return_sequences": 4},
            }
        ],
        "roster": [
            {"peer": peer(i), "operator": f"operator-{i}", "classes": [CLASS]}
            for i in range(members)
        ],
    }


def helium_document(members: int = 4, **parameters: Any) -> dict[str, Any]:
    """A network with helium classes beside `CLASS`, and models of which all but one have replay."""
    document = network_document(members, **parameters)
    runtime = {"engine": "helium", "arithmetic": 1, "probe": "e" * 64, "tokenizers": "0.22.2"}
    document["classes"] |= {
        HELIUM: {**runtime, "task": "text-to-music"},
        HELIUM_PIANO: {**runtime, "task": "pop2piano", "libc": "glibc 2.36"},
    }
    (music,) = document["models"]
    piano = {**music, "id": PIANO, "tasks": ["pop2piano"], "limits": {}, "replay": True}
    document["models"] = [{**music, "replay": True}, piano, {**music, "id": UNREPLAYED}]
    for member in document["roster"]:
        member["classes"] = [*document["classes"]]
    return document


def network(members: int = 4, **parameters: Any) -> Network:
    return Network.parse(canonical(network_document(members, **parameters)))


def args(**changes: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "80s pop track", "seed": 42} | changes


def piano_args(*songs: bytes, **changes: Any) -> dict[str, Any]:
    audio = [{"sha256": hashlib.sha256(s).hexdigest(), "size": len(s)} for s in songs]
    return {"model": PIANO, "audio": audio, "composer": "composer1", "seed": 42} | changes


def piano_network(members: int = 4, **parameters: Any) -> Network:
    """A network whose second model arranges songs for piano."""
    document = network_document(members, **parameters)
    document["models"].append(
        {**document["models"][0], "id": PIANO, "tasks": ["pop2piano"], "limits": {}}
    )
    return Network.parse(canonical(document))


def task(
    net: Network,
    *,
    now: float = START,
    deadline: int = 600,
    nonce: int = 0,
    requester: int = 1000,
    kind: str = "text-to-music",
    compute_class: str = CLASS,
    **changes: Any,
) -> Task:
    body = messages.task_body(
        net.id,
        kind,
        args(**changes),
        compute_class,
        int(now * 1000),
        deadline,
        f"{nonce:032x}",
        peer(requester),
    )
    signed_task = signed(net, body, requester)
    assert isinstance(signed_task, Task)
    return signed_task


def task_of(net: Network, envelope: Document) -> Task:
    message = codec.decode(canonical(envelope), net.id)
    assert isinstance(message, Task)
    return message


def signed(net: Network, body: Document, index: int) -> messages.Message:
    return codec.decode(sign(body, key(index)).encode(), net.id)


def signed_by(net: Network, body: Document, member: str) -> Vote:
    vote = codec.decode(sign(body, key_of(member)).encode(), net.id)
    assert not isinstance(vote, Task | Withdraw)
    return vote


def outcome(label: str = "honest") -> dict[str, Any]:
    """A result with one output, whose hash is that of the label."""
    sha256 = hashlib.sha256(label.encode()).hexdigest()
    entry = {
        "media": "audio/f32",
        "sampling_rate": 32_000,
        "frames": 16,
        "channels": 1,
        "sha256": sha256,
        "size": 64,
        "chunks": [sha256],
    }
    return {"result": {"outputs": [entry]}}


def proven(label: str = "honest", blob: bytes = bytes(8)) -> dict[str, Any]:
    """The outcome with the work and the tokens of a task that proves work."""
    (entry,) = outcome(label)["result"]["outputs"]
    entry["tokens"] = {"sha256": hashlib.sha256(blob).hexdigest(), "size": len(blob)}
    work = hashlib.sha256(f"work {label}".encode()).hexdigest()
    return {"result": {"outputs": [entry]}, "work": work}


def salt(member: str, attempt: int = 0) -> str:
    return hashlib.sha256(f"salt {member} {attempt}".encode()).hexdigest()


def commitment_of(task: Task, member: str, revealed: Document, attempt: int = 0) -> str:
    """The commitment of a member to an outcome."""
    digest = messages.outcome_digest(revealed)
    return messages.commitment(task.id, attempt, member, digest, salt(member, attempt))


def commit(
    net: Network, task: Task, member: str, committed: Document | None = None, attempt: int = 0
) -> Commit:
    commitment = commitment_of(task, member, outcome() if committed is None else committed, attempt)
    vote = signed_by(net, messages.commit_body(net.id, task.id, attempt, commitment), member)
    assert isinstance(vote, Commit)
    return vote


def reveal(
    net: Network,
    task: Task,
    member: str,
    commits: dict[str, str],
    revealed: Document | None = None,
    attempt: int = 0,
    trace: Document | None = None,
) -> Reveal:
    body = messages.reveal_body(
        net.id,
        task.id,
        attempt,
        outcome() if revealed is None else revealed,
        salt(member, attempt),
        commits,
        {"seconds": 1} if trace is None else trace,
    )
    vote = signed_by(net, body, member)
    assert isinstance(vote, Reveal)
    return vote


def withdraw(net: Network, task: Task, requester: int = 1000) -> Withdraw:
    message = signed(net, messages.withdraw_body(net.id, task.id), requester)
    assert isinstance(message, Withdraw)
    return message


def abstain(net: Network, task: Task, member: str, reason: str = "busy", attempt: int = 0) -> Vote:
    body = messages.abstain_body(net.id, task.id, attempt, Abstention(reason))
    return signed_by(net, body, member)


def hello_request(network: str) -> dict[str, Any]:
    """A hello request of a node; `network` is a network id."""
    return {
        "network": network,
        "agent": "test",
        "time": int(START * 1000),
        "instance": "0f" * 16,
    }


def hello_answer(network: str, **changes: Any) -> dict[str, Any]:
    """A hello answer of a node outside the roster."""
    own = {"classes": [], "ready": True, "reasons": [], "models": {}, "duplicate": False}
    return hello_request(network) | own | changes
