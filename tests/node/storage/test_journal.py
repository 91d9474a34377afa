"""What was committed is there again, what was not is not, and foreign files are refused."""

import copy
import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from node.storage.database import Database
from node.storage.errors import UnusableDatabase
from node.storage.journal import OwnOutcome
from node.storage.ledger import CertifiedBlob
from node.storage.schema import SCHEMA_VERSION
from protocol.consensus import evidence
from protocol.consensus.certificate import Certificate, assemble
from protocol.consensus.committee import committees
from protocol.consensus.effects import State
from protocol.consensus.evidence import Evidence
from protocol.manifest import blobs_of
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Task
from tests.node.storage.opened import Storage, open_storage
from tests.support import fixtures

NETWORK = "0123456789abcdef"
Damage = Callable[[Path], None]


@pytest.fixture
def net() -> Network:
    return fixtures.network()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.sqlite"


def certify(net: Network, task: Task, outcome: Document) -> Certificate:
    committee = committees(net, task)[0]
    commits = {member: fixtures.commitment_of(task, member, outcome) for member in committee}
    reveals = [fixtures.reveal(net, task, member, commits, dict(outcome)) for member in committee]
    return assemble(task, 0, reveals, net)


def crash_copy(path: Path) -> Path:
    """The database as a killed process leaves it: file and write-ahead log, never closed."""
    target = path.with_name("crashed.sqlite")
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copy(source, target.with_name(target.name + suffix))
    return target


def fill(storage: Storage, net: Network) -> Task:
    task = fixtures.task(net)
    member = committees(net, task)[0][0]
    with storage.journal.transaction():
        storage.journal.append(task, 1.5)
        storage.journal.put_state(task.id, State.EXECUTING, 0)
    with storage.journal.transaction():
        storage.journal.put_salt(task.id, 0, "5" * 64)
        storage.journal.put_outcome(task.id, fixtures.outcome(), {"seconds": 1}, 2.5)
        storage.journal.append(fixtures.commit(net, task, member), 2.5)
        storage.journal.put_state(task.id, State.COMMITTED, 0)
        storage.ledger.put_cursor("peer", "feed", 7)
        storage.ledger.put_certificate(certify(net, task, fixtures.outcome()))
    return task


def check_filled(storage: Storage, net: Network, task: Task) -> None:
    entries = storage.journal.entries(task.id)
    member = committees(net, task)[0][0]
    assert [(e.seq, e.signer, e.type, e.at) for e in entries] == [
        (1, fixtures.peer(1000), "task", 1.5),
        (2, member, "commit", 2.5),
    ]
    assert entries[0].envelope.encode() == task.envelope.encode()
    assert storage.journal.state(task.id) == (State.COMMITTED, 0)
    assert storage.journal.salt(task.id, 0) == "5" * 64
    assert storage.journal.outcome(task.id) == OwnOutcome(
        fixtures.outcome(), {"seconds": 1}, 1, 2.5
    )
    assert storage.ledger.cursor("peer") == ("feed", 7)
    assert len(storage.ledger.certificates(task.id)) == 1


def test_committed_rows_survive_closing(path: Path, net: Network) -> None:
    storage = open_storage(path, net.id)
    task, feed = fill(storage, net), storage.journal.feed_id
    storage.close()
    reopened = open_storage(path, net.id)
    check_filled(reopened, net, task)
    assert reopened.journal.feed_id == feed
    reopened.close()


def test_committed_rows_survive_a_kill(path: Path, net: Network) -> None:
    storage = open_storage(path, net.id)
    task, feed = fill(storage, net), storage.journal.feed_id
    crashed = open_storage(crash_copy(path), net.id)
    check_filled(crashed, net, task)
    assert crashed.journal.feed_id == feed
    crashed.close()
    storage.close()


def test_transaction_interrupted_by_a_kill_leaves_nothing(path: Path, net: Network) -> None:
    storage = open_storage(path, net.id)
    task = fill(storage, net)
    with storage.journal.transaction():
        storage.journal.put_state(task.id, State.REVEALED, 0)
        storage.journal.put_salt(task.id, 1, "6" * 64)
        crashed = open_storage(crash_copy(path), net.id)
    check_filled(crashed, net, task)
    assert crashed.journal.salt(task.id, 1) is None
    crashed.close()
    storage.close()


def test_every_commit_is_synced(path: Path, net: Network) -> None:
    """The two pragmas without which a power cut may take what was committed."""
    connection = sqlite3.connect(path, isolation_level=None)
    Database(connection, net.id)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, sqlite3.OperationalError])
def test_error_inside_a_transaction_leaves_nothing(
    path: Path, net: Network, error: type[BaseException]
) -> None:
    storage = open_storage(path, net.id)
    task = fixtures.task(net)

    def broken_step() -> None:
        with storage.journal.transaction():
            storage.journal.append(task, 1.0)
            storage.journal.put_state(task.id, State.WAITING, 0)
            raise error

    with pytest.raises(error):
        broken_step()
    assert storage.journal.feed(0, 10) == []
    assert storage.journal.state(task.id) is None
    with storage.journal.transaction():  # and the database is usable again
        storage.journal.append(task, 1.0)
    assert len(storage.journal.feed(0, 10)) == 1
    storage.close()


def test_failing_commit_is_rolled_back(path: Path, net: Network) -> None:
    """Another process that holds the database: the step fails whole, and works afterwards."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    storage = Storage(Database(connection, net.id))
    holder = sqlite3.connect(path, isolation_level=None, timeout=0)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"), storage.journal.transaction():
        raise AssertionError("the transaction must not begin")
    holder.execute("ROLLBACK")
    holder.close()
    with storage.journal.transaction():
        storage.ledger.put_cursor("p", "f", 1)
    assert storage.ledger.cursor("p") == ("f", 1)
    storage.close()


def test_another_network_is_refused(path: Path) -> None:
    open_storage(path, NETWORK).close()
    with pytest.raises(UnusableDatabase, match=rf"network {NETWORK}, not f{{16}}: choose another"):
        open_storage(path, "f" * 16)


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database " * 1000)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _header_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _noise(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:8192] = b"\xa5" * (8192 - 100)
    path.write_bytes(content)


def _no_tables(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.close()


def _no_network(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM about")
    connection.commit()
    connection.close()


def _foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE tasks (whatever)")
    connection.close()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        _garbage,
        _cut,
        _header_only,
        _noise,
        _no_tables,
        _no_network,
        _foreign,
        _folder,
    ],
)
def test_damaged_file_is_refused(path: Path, damage: Damage) -> None:
    open_storage(path, NETWORK).close()
    damage(path)
    with pytest.raises(UnusableDatabase):
        open_storage(path, NETWORK)


def test_feed_is_in_order_of_acceptance(path: Path, net: Network) -> None:
    storage = open_storage(path, net.id)
    tasks = [fixtures.task(net, nonce=n) for n in range(5)]
    for at, task in enumerate(reversed(tasks)):
        storage.journal.append(task, float(at))
    everything = storage.journal.feed(0, 100)
    assert [id_ for _, id_ in everything] == [task.envelope.id for task in reversed(tasks)]
    cursors = [seq for seq, _ in everything]
    assert cursors == sorted(set(cursors))
    assert storage.journal.feed(0, 2) == everything[:2]
    assert storage.journal.feed(cursors[1], 2) == everything[2:4]
    assert storage.journal.feed(cursors[-1], 2) == []
    assert storage.journal.feed(10**15, 2) == []
    storage.close()


def test_envelopes_are_found_by_their_ids(path: Path, net: Network) -> None:
    storage = open_storage(path, net.id)
    task = fixtures.task(net)
    vote = fixtures.abstain(net, task, committees(net, task)[0][0])
    for message in (task, vote):
        assert storage.journal.find(message.envelope.id) is None
        assert storage.journal.envelope(message.envelope.id) is None
        storage.journal.append(message, 0.0)
        text = storage.journal.envelope(message.envelope.id)
        assert text is not None
        assert text.encode() == message.envelope.encode()
    assert storage.journal.find(task.envelope.id) == (task.id, "task")
    assert storage.journal.find(vote.envelope.id) == (task.id, "abstain")
    storage.close()


def test_an_envelope_is_kept_once(path: Path, net: Network) -> None:
    storage = open_storage(path, net.id)
    storage.journal.append(fixtures.task(net), 0.0)
    with pytest.raises(sqlite3.IntegrityError):
        storage.journal.append(fixtures.task(net), 1.0)
    assert len(storage.journal.feed(0, 10)) == 1
    storage.close()


def test_a_batch_is_durable_at_its_end_without_the_step_that_failed(
    path: Path, net: Network
) -> None:
    storage, told = open_storage(path, net.id), list[list[str]]()
    storage.journal.on_accepted.append(lambda ids: told.append(list(ids)))
    tasks = [fixtures.task(net, nonce=n) for n in range(3)]

    def append(task: Task, *, fails: bool = False) -> None:
        with storage.journal.transaction():
            storage.journal.append(task, 0.0)
            storage.journal.put_state(task.id, State.WAITING, 0)
            if fails:
                raise ZeroDivisionError

    with storage.journal.batch():
        append(tasks[0])
        with pytest.raises(ZeroDivisionError):
            append(tasks[1], fails=True)
        append(tasks[2])
        assert told == []
        crashed = open_storage(crash_copy(path), net.id)
        assert crashed.journal.open_tasks() == []
        crashed.close()
    kept = [tasks[0], tasks[2]]
    assert told == [[task.envelope.id for task in kept]]
    crashed = open_storage(crash_copy(path), net.id)
    assert crashed.journal.open_tasks() == sorted(task.id for task in kept)
    crashed.close()
    storage.close()


def test_a_batch_that_fails_leaves_nothing_and_the_journal_goes_on(
    path: Path, net: Network
) -> None:
    storage, told = open_storage(path, net.id), list[list[str]]()
    storage.journal.on_accepted.append(lambda ids: told.append(list(ids)))

    def broken_batch() -> None:
        with storage.journal.batch():
            with storage.journal.transaction():
                storage.journal.append(fixtures.task(net), 0.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_batch()
    with storage.journal.batch():  # without a step, it writes nothing
        pass
    assert storage.journal.last_cursor() == 0
    assert told == []
    with storage.journal.transaction():
        storage.journal.append(fixtures.task(net), 0.0)
    assert told == [[fixtures.task(net).envelope.id]]
    storage.close()
    reopened = open_storage(path, net.id)
    assert reopened.journal.last_cursor() == 1
    reopened.close()


def test_the_journal_tells_once_an_envelope_is_durable(path: Path, net: Network) -> None:
    """And of nothing else: whoever waits for the feed is woken by it."""
    storage, told = open_storage(path, net.id), list[list[str]]()
    storage.journal.on_accepted.append(lambda ids: told.append(list(ids)))
    tasks = [fixtures.task(net, nonce=n) for n in range(3)]
    kept = [task.envelope.id for task in tasks[:2]]
    with storage.journal.transaction():
        storage.journal.put_state(tasks[0].id, State.WAITING, 0)
    assert told == []
    with storage.journal.transaction():
        storage.journal.append(tasks[0], 0.0)
        storage.journal.append(tasks[1], 0.0)
        assert told == []
    assert told == [kept]

    def broken_step() -> None:
        with storage.journal.transaction():
            storage.journal.append(tasks[2], 0.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_step()
    with storage.journal.transaction():
        pass
    assert told == [kept]
    storage.close()


def test_feed_cursors_are_never_reused(path: Path, net: Network) -> None:
    """A feed's cursor means one envelope for ever, whatever was rolled back or closed between."""
    storage = open_storage(path, net.id)
    storage.journal.append(fixtures.task(net, nonce=1), 0.0)
    storage.close()
    storage = open_storage(path, net.id)
    storage.journal.append(fixtures.task(net, nonce=2), 0.0)
    assert [seq for seq, _ in storage.journal.feed(0, 9)] == [1, 2]
    storage.close()


def test_two_databases_have_two_feed_ids(tmp_path: Path) -> None:
    storages = [open_storage(tmp_path / name, NETWORK) for name in ("a", "b")]
    assert storages[0].journal.feed_id != storages[1].journal.feed_id
    for storage in storages:
        storage.close()


def test_empty_database_answers_with_nothing(path: Path) -> None:
    storage = open_storage(path, NETWORK)
    assert storage.journal.state("0" * 64) is None
    assert storage.journal.outcome("0" * 64) is None
    assert storage.journal.salt("0" * 64, 0) is None
    assert storage.ledger.outputs("0" * 64) == []
    assert storage.journal.entries("0" * 64) == []
    assert storage.ledger.certificates("0" * 64) == []
    assert storage.ledger.evidence() == []
    assert storage.journal.open_tasks() == []
    assert storage.ledger.cursor("nobody") == ("", 0)
    storage.close()


def test_open_tasks_are_those_that_have_not_ended(path: Path) -> None:
    storage = open_storage(path, NETWORK)
    for number, state in enumerate(State):
        storage.journal.put_state(f"{number:064x}", state, number)
    assert {storage.journal.state(task) for task in storage.journal.open_tasks()} == {
        (state, number) for number, state in enumerate(State) if not state.terminal
    }
    storage.journal.put_state(f"{0:064x}", State.AGREED, 3)
    assert f"{0:064x}" not in storage.journal.open_tasks()
    assert storage.journal.state(f"{0:064x}") == (State.AGREED, 3)
    storage.close()


def test_voters_of_a_task_are_the_signers_of_its_votes(path: Path, net: Network) -> None:
    storage = open_storage(path, net.id)
    task, other = fixtures.task(net), fixtures.task(net, nonce=1)
    first, second, third = committees(net, task)[0]
    for message in (
        task,
        fixtures.withdraw(net, task),
        fixtures.commit(net, task, first),
        fixtures.reveal(net, task, first, {}),
        fixtures.abstain(net, task, second),
        other,
        fixtures.abstain(net, other, third),
    ):
        storage.journal.append(message, 1.0)
    assert storage.journal.voters(task.id) == {first, second}
    assert storage.journal.voters(other.id) == {third}
    storage.close()


def test_inputs_of_open_tasks_are_listed(path: Path) -> None:
    storage, net = open_storage(path, NETWORK), fixtures.piano_network()
    body = fixtures.task(net, kind="pop2piano").envelope.body
    for number, state in enumerate(State):
        args = fixtures.piano_args(b"all of them", bytes((number,)))
        task = fixtures.signed(net, {**body, "args": args}, 1000)
        assert isinstance(task, Task)
        storage.journal.append(task, 0.0)
        storage.journal.put_state(task.id, state, 0)
    plain = fixtures.task(fixtures.network())
    storage.journal.append(plain, 0.0)
    storage.journal.put_state(plain.id, State.EXECUTING, 0)
    open_ = [bytes((number,)) for number, state in enumerate(State) if not state.terminal]
    named = {hashlib.sha256(song).hexdigest() for song in (b"all of them", *open_)}
    assert storage.journal.open_task_inputs() == named
    storage.close()


def test_own_outputs_are_listed(path: Path, net: Network) -> None:
    storage, outcome = open_storage(path, NETWORK), fixtures.outcome()
    assert storage.journal.own_outputs() == frozenset()
    storage.journal.put_outcome("a", outcome, {}, 1.0)
    storage.journal.put_outcome("b", {"error": "generation-rejected"}, {}, 1.0)
    assert (
        storage.journal.own_outputs() == {blob.sha256 for blob in blobs_of(outcome)} != frozenset()
    )
    storage.close()


def test_tokens_are_own_outputs(path: Path, net: Network) -> None:
    storage, outcome = open_storage(path, NETWORK), fixtures.proven()
    storage.journal.put_outcome("a", outcome, {}, 1.0)
    sound, tokens = (blob.sha256 for blob in blobs_of(outcome))
    assert storage.journal.own_outputs() == {sound, tokens}
    storage.close()


def test_first_outcome_and_first_salt_are_kept(path: Path) -> None:
    storage = open_storage(path, NETWORK)
    storage.journal.put_outcome("t", fixtures.outcome("first"), {"seconds": 1}, 1.0)
    storage.journal.put_outcome("t", fixtures.outcome("second"), {"seconds": 2}, 2.0)
    assert storage.journal.outcome("t") == OwnOutcome(
        fixtures.outcome("first"), {"seconds": 1}, 0, 1.0
    )
    storage.journal.put_salt("t", 0, "a" * 64)
    with pytest.raises(sqlite3.IntegrityError):
        storage.journal.put_salt("t", 0, "b" * 64)
    storage.journal.put_salt("t", 1, "c" * 64)
    assert (storage.journal.salt("t", 0), storage.journal.salt("t", 1)) == ("a" * 64, "c" * 64)
    storage.close()


def test_second_certified_outcome_is_kept_beside_the_first(path: Path, net: Network) -> None:
    storage, task = open_storage(path, net.id), fixtures.task(net)
    first, second = (certify(net, task, fixtures.outcome(label)) for label in ("one", "two"))
    for certificate in (first, second, first):
        storage.ledger.put_certificate(certificate)
    assert storage.ledger.certificates(task.id) == [first.document, second.document]
    storage.close()


def test_outputs_of_certificates_are_indexed_with_their_signers(path: Path, net: Network) -> None:
    storage, task = open_storage(path, net.id), fixtures.task(net)
    certificate = certify(net, task, fixtures.outcome())
    storage.ledger.put_certificate(certificate)
    (blob,) = blobs_of(fixtures.outcome())
    assert storage.ledger.outputs(blob.sha256) == [CertifiedBlob(blob, certificate.signers)]
    storage.close()


def test_tokens_of_certificates_are_indexed_with_their_signers(path: Path) -> None:
    net = Network.of(fixtures.helium_document())
    storage = open_storage(path, net.id)
    task = fixtures.task(net, compute_class=fixtures.HELIUM)
    certificate = certify(net, task, fixtures.proven())
    storage.ledger.put_certificate(certificate)
    for blob in blobs_of(fixtures.proven()):
        assert storage.ledger.outputs(blob.sha256) == [CertifiedBlob(blob, certificate.signers)]
    storage.close()


def test_signers_of_equal_outputs_are_listed_together(path: Path, net: Network) -> None:
    storage = open_storage(path, net.id)
    certificates = [
        certify(net, fixtures.task(net, nonce=nonce), fixtures.outcome()) for nonce in range(5)
    ]
    for certificate in certificates:
        storage.ledger.put_certificate(certificate)
    (blob,) = blobs_of(fixtures.outcome())
    (output,) = storage.ledger.outputs(blob.sha256)
    assert output.blob == blob
    signers = [signer for certificate in certificates for signer in certificate.signers]
    assert output.signers == tuple(dict.fromkeys(signers))
    assert len(output.signers) > len(certificates[0].signers)
    storage.close()


def test_wrong_chunks_of_one_certificate_do_not_replace_those_of_another(
    path: Path, net: Network
) -> None:
    """A colluding committee can certify the hash of another task's output."""
    storage, right = open_storage(path, net.id), fixtures.outcome()
    wrong = copy.deepcopy(right)
    wrong["result"]["outputs"][0]["chunks"] = ["0" * 64]
    for nonce, outcome in enumerate([wrong, right]):
        certificate = certify(net, fixtures.task(net, nonce=nonce), outcome)
        storage.ledger.put_certificate(certificate)
    blobs = [output.blob for output in storage.ledger.outputs(blobs_of(right)[0].sha256)]
    assert sorted(blobs, key=lambda blob: blob.chunks) == [*blobs_of(wrong), *blobs_of(right)]
    storage.close()


def test_certificate_of_an_error_indexes_no_outputs(path: Path, net: Network) -> None:
    storage, task = open_storage(path, net.id), fixtures.task(net)
    certificate = certify(net, task, {"error": "non-finite-output"})
    storage.ledger.put_certificate(certificate)
    assert storage.ledger.certificates(task.id) == [certificate.document]
    storage.close()


def test_evidence_is_kept_once(path: Path, net: Network) -> None:
    storage, task = open_storage(path, net.id), fixtures.task(net)
    member = committees(net, task)[0][0]
    votes = [
        fixtures.commit(net, task, member, fixtures.outcome(label)) for label in ("one", "two")
    ]
    proof = Evidence.from_votes(*votes)
    storage.ledger.put_evidence(proof)
    storage.ledger.put_evidence(proof)
    assert storage.ledger.evidence() == [proof.document]
    assert evidence.verify(storage.ledger.evidence()[0], net.id) == proof
    storage.close()


def test_cursors_of_peers_are_replaced(path: Path) -> None:
    storage = open_storage(path, NETWORK)
    storage.ledger.put_cursor("p", "one", 5)
    storage.ledger.put_cursor("p", "two", 3)
    storage.ledger.put_cursor("q", "three", 1)
    assert storage.ledger.cursor("p") == ("two", 3)
    assert storage.ledger.cursor("q") == ("three", 1)
    storage.close()


def test_second_process_on_a_data_folder_is_refused(tmp_path: Path) -> None:
    """A second node on it would vote with the same key, and unlink the first one's files."""
    first = open_storage(tmp_path / "node.sqlite", NETWORK)
    with pytest.raises(UnusableDatabase, match="another node is running"):
        open_storage(tmp_path / "node.sqlite", NETWORK)
    first.close()
    open_storage(tmp_path / "node.sqlite", NETWORK).close()
