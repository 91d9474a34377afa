"""What a journal holds, for tests."""

from node.storage.journal import Journal


def accepted(journal: Journal) -> list[bytes]:
    """Return the canonical bytes of all envelopes that a node accepted, in its order."""
    texts = [journal.envelope(id_) for _, id_ in journal.feed(0, 1_000_000)]
    return [text.encode() for text in texts if text is not None]
