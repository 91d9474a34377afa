from dataclasses import asdict

from protocol import constants
from tests.support import fixtures


def test_the_defaults_are_the_specifications() -> None:
    assert asdict(constants.Parameters()) == {
        "committee_size": 3,
        "committee_max": 7,
        "commit_grace_seconds": 2,
        "attempt_seconds": 120,
        "max_deadline_seconds": 3600,
        "clock_skew_seconds": 60,
        "max_input_bytes": 33_554_432,
        "max_output_bytes": 134_217_728,
    }
    assert fixtures.network_document()["parameters"] == asdict(constants.Parameters())


def test_the_limits_are_the_specifications() -> None:
    assert constants.VERSION == 1
    assert constants.ENVELOPE_LIMIT == 65_536
    assert constants.DOCUMENT_LIMIT == 1_048_576
    assert constants.MAX_DEPTH == 16
    assert constants.MAX_INTEGER == 9_007_199_254_740_991
    assert constants.TRACE_LIMIT == 8_192
    assert constants.SALT_BYTES == 32
