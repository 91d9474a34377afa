from protocol import constants


def test_limits_match_the_specification() -> None:
    assert constants.VERSION == 2
    assert constants.ENVELOPE_LIMIT == 65_536
    assert constants.DOCUMENT_LIMIT == 1_048_576
    assert constants.NETWORK_LIMIT == 8_388_608
    assert constants.CERTIFICATE_LIMIT == 983_040
    assert constants.MAX_DEPTH == 16
    assert constants.MAX_INTEGER == 9_007_199_254_740_991
    assert constants.TRACE_LIMIT == 8_192
    assert constants.SALT_BYTES == 32
