from protocol.manifest import Blob, blobs_of, outputs_of
from protocol.wire.encoding import Document
from tests.support import fixtures

NOTES: Document = {"media": "audio/midi", "sha256": "b" * 64, "size": 20, "notes": 3}


def test_blobs_of_result_keep_their_order() -> None:
    (wave,) = fixtures.outcome()["result"]["outputs"]
    outcome: Document = {"result": {"outputs": [NOTES, wave]}}
    assert blobs_of(outcome) == (
        Blob("b" * 64, 20, ()),
        Blob(wave["sha256"], 64, tuple(wave["chunks"])),
    )
    assert list(outputs_of(outcome)) == [NOTES, wave]


def test_error_outcome_has_no_outputs() -> None:
    outcome: Document = {"error": "non-finite-output"}
    assert outputs_of(outcome) == []
    assert blobs_of(outcome) == ()
