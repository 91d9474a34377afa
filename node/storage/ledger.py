"""Ledger: what has been proven and measured, in the same SQLite database as the journal.

It holds certificates with the blobs that they name, evidence, each peer's voting record and how
far other nodes' feeds have been read. Nothing here is needed to rebuild a task after a restart.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from node.storage.database import Database
from node.storage.reader import LedgerReader
from protocol.consensus.certificate import Certificate
from protocol.consensus.conduct import SUSPECT_TASKS, Conduct, VoteOutcome
from protocol.consensus.evidence import Evidence
from protocol.manifest import Blob, blobs_of
from protocol.wire.encoding import Document


@dataclass(frozen=True, slots=True)
class CertifiedBlob:
    """A blob that certificates name, and the peers that signed that they have it."""

    blob: Blob
    signers: tuple[str, ...]


class Ledger(LedgerReader):
    """The ledger of one database. Used from one thread; writes join the open transaction."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connection)

    def put_certificate(self, certificate: Certificate) -> None:
        """Store a certificate; a second outcome of the task is stored beside the first."""
        self._db.execute(
            "INSERT OR IGNORE INTO certificates (task, outcome, document) VALUES (?, ?, ?)",
            (certificate.task.id, certificate.votes[0].digest, certificate.encode().decode()),
        )
        for blob in blobs_of(certificate.outcome):
            self._put_output(blob, certificate.signers)

    def _put_output(self, blob: Blob, signers: Iterable[str]) -> None:
        """Record who signed that it has a blob, beside those that signed it before.

        The hash alone is no key: a colluding committee may certify another's hash with a wrong size
        or wrong chunks, with which nobody can fetch the blob.
        """
        # Hashes and peer ids hold no spaces.
        key = (blob.sha256, blob.size, " ".join(blob.chunks))
        row = self._db.execute(
            "SELECT signers FROM outputs WHERE sha256 = ? AND size = ? AND chunks = ?", key
        ).fetchone()
        earlier = [] if row is None else row[0].split()
        names = " ".join(dict.fromkeys([*earlier, *signers]))
        self._db.execute("INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?)", (*key, names))

    def certificates(self, task: str) -> list[Document]:
        """Return the certificates of a task, oldest first; two are a conflict."""
        rows = self._db.execute(
            "SELECT document FROM certificates WHERE task = ? ORDER BY seq", (task,)
        )
        return [json.loads(document) for (document,) in rows]

    def certified_outcomes(self, task: str) -> frozenset[str]:
        """Return the digests of the certified outcomes of a task; two are a conflict."""
        rows = self._db.execute("SELECT outcome FROM certificates WHERE task = ?", (task,))
        return frozenset(digest for (digest,) in rows)

    def outputs(self, sha256: str) -> list[CertifiedBlob]:
        """Return what the certificates say about a blob, that with the most signers first.

        At most one of them is right: a hash belongs to one size and one list of chunks.
        """
        rows = self._db.execute(
            "SELECT size, chunks, signers FROM outputs WHERE sha256 = ?", (sha256,)
        )
        outputs = [
            CertifiedBlob(Blob(sha256, size, tuple(chunks.split())), tuple(signers.split()))
            for size, chunks, signers in rows
        ]
        return sorted(outputs, key=lambda output: -len(output.signers))

    def put_evidence(self, evidence: Evidence) -> None:
        """Store evidence; storing the same again changes nothing."""
        self._db.execute(
            "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?)",
            (evidence.id, evidence.signer, evidence.task, evidence.encode().decode()),
        )

    def votes_may_be_missing(self, task: str) -> bool:
        """Return True if a member equivocated in a task that has no conflict of certificates.

        The journal keeps only some of the votes of an equivocator. The task's certificates must
        then be asked for: they may hold the votes that are missing here.
        """
        (missing,) = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM evidence WHERE task = ?"
            " AND json_extract(document, '$.kind') = 'equivocation')"
            " AND (SELECT count(*) FROM certificates WHERE task = ?) < 2",
            (task, task),
        ).fetchone()
        return bool(missing)

    def put_conduct(self, task: str, conducts: Iterable[Conduct]) -> None:
        """Record what the members of a task did, replacing the task's earlier rows."""
        # A vote that arrives after the task has ended can change what was recorded.
        self._db.execute("DELETE FROM conduct WHERE task = ?", (task,))
        (accepted,) = self._db.execute(
            "SELECT coalesce(min(seq), 0) FROM envelopes WHERE task = ?", (task,)
        ).fetchone()
        self._db.executemany(
            "INSERT INTO conduct VALUES (?, ?, ?, ?, ?, ?)",
            [(task, r.attempt, r.peer, r.outcome, r.suspect_from, accepted) for r in conducts],
        )

    def suspects(self, peers: Iterable[str], now: float) -> frozenset[str]:
        """Return those of `peers` that failed, and agreed too seldom since (specification 6.8)."""
        names = list(peers)
        # The index of faults has a row for each; most often there is none.
        rows = self._db.execute(
            "SELECT peer, max(accepted) FROM conduct WHERE suspect_from <= ?"  # noqa: S608
            f" AND peer IN ({', '.join('?' * len(names))}) GROUP BY peer",
            (now, *names),
        ).fetchall()
        return frozenset(peer for peer, fault in rows if self._agreed_too_seldom(peer, fault))

    def _agreed_too_seldom(self, peer: str, fault: int) -> bool:
        (agreed,) = self._db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM conduct WHERE peer = ? AND accepted > ?"
            " AND conduct = ? GROUP BY accepted LIMIT ?)",
            (peer, fault, VoteOutcome.AGREED, SUSPECT_TASKS),
        ).fetchone()
        return bool(agreed < SUSPECT_TASKS)

    def cursor(self, peer: str) -> tuple[str, int]:
        """Return the feed id and cursor up to which a peer's feed was read; ("", 0) at first."""
        row = self._db.execute(
            "SELECT feed, cursor FROM cursors WHERE peer = ?", (peer,)
        ).fetchone()
        return ("", 0) if row is None else (row[0], row[1])

    def put_cursor(self, peer: str, feed: str, cursor: int) -> None:
        """Record up to where a peer's feed was read."""
        self._db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (peer, feed, cursor))
