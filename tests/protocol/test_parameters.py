from dataclasses import asdict

from protocol import parameters
from tests import cast


def test_the_defaults_are_the_specifications() -> None:
    assert asdict(parameters.Parameters()) == {
        "committee_size": 3,
        "committee_max": 7,
        "commit_grace_seconds": 2,
        "attempt_seconds": 120,
        "max_deadline_seconds": 3600,
        "clock_skew_seconds": 60,
        "max_input_bytes": 33_554_432,
        "max_output_bytes": 134_217_728,
    }
    assert cast.network_document()["parameters"] == asdict(parameters.Parameters())


def test_the_limits_are_the_specifications() -> None:
    assert parameters.VERSION == 1
    assert parameters.ENVELOPE_LIMIT == 65_536
    assert parameters.DOCUMENT_LIMIT == 1_048_576
    assert parameters.MAX_DEPTH == 16
    assert parameters.MAX_INTEGER == 9_007_199_254_740_991
    assert parameters.TRACE_LIMIT == 8_192
    assert parameters.SALT_BYTES == 32
