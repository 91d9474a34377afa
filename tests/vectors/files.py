"""The golden vectors by file name, and the text of a file."""

import functools
import json
from pathlib import Path

from tests.vectors import (
    answers,
    clients,
    clocks,
    encoding,
    feeds,
    gossip,
    limits,
    manifests,
    membership,
    proofs,
    refusals,
    rounds,
    scores,
    signatures,
    signing,
    starts,
    suspects,
    waveforms,
    work,
)
from tests.vectors.entries import Vectors

FOLDER = Path(__file__).parent


@functools.cache
def documents() -> dict[str, Vectors]:
    """Return every file's document as the present code makes it; computed once, as it is slow."""
    return {
        "canonical.json": encoding.canonical_json(),
        "hashes.json": encoding.hashes(),
        "identities.json": encoding.identities(),
        "signatures.json": signatures.signatures(),
        "envelopes.json": signing.envelopes(),
        "commitments.json": signing.commitments(),
        "networks.json": membership.networks(),
        "limits.json": limits.limits(),
        "committees.json": membership.committee_vectors(),
        "certificates.json": proofs.certificates(),
        "evidence.json": proofs.evidence_vectors(),
        "manifests.json": manifests.manifests(),
        "rejections.json": refusals.rejections(),
        "rounds.json": rounds.rounds(),
        "suspects.json": suspects.suspects(),
        "clients.json": clients.clients(),
        "clocks.json": clocks.clocks(),
        "starts.json": starts.starts(),
        "answers.json": answers.answers(),
        "gossip.json": gossip.gossip(),
        "feeds.json": feeds.feeds(),
        "waveforms.json": waveforms.waveforms(),
        "scores.json": scores.scores(),
        "work.json": work.work_vectors(),
    }


def text(document: Vectors) -> str:
    """Return the text of a file: ASCII, indented, members in the order they were written in."""
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Write every file."""
    for name, document in documents().items():
        (folder / name).write_text(text(document), encoding="ascii")


def differing(folder: Path = FOLDER) -> list[str]:
    """Return the names of files that are missing, superfluous or different."""
    stored = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    expected = {name: text(document).encode("ascii") for name, document in documents().items()}
    return sorted(n for n in stored.keys() | expected.keys() if stored.get(n) != expected.get(n))
