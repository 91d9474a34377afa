"""What a certificate vouches for: the outputs of its manifest (specification 8)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.wire.encoding import Document


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as a manifest names it; `chunks` may be empty where no chunk hashes are known."""

    sha256: str
    size: int
    chunks: tuple[str, ...]


def outputs_of(outcome: Document) -> Sequence[Mapping[str, Any]]:
    """Return the manifest entries of an outcome; none for an error."""
    manifest: Any = outcome.get("result", {"outputs": []})
    return manifest["outputs"]  # type: ignore[no-any-return]  # the schema of outcomes says so


def blobs_of(outcome: Document) -> tuple[Blob, ...]:
    """Return the blobs of an outcome's manifest, in its order; none for an error."""
    return tuple(
        Blob(o["sha256"], o["size"], tuple(o.get("chunks", ()))) for o in outputs_of(outcome)
    )
