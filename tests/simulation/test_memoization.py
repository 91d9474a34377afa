"""The caches change nothing: same bytes, same messages, same rejections."""

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Rejected, Rejection
from protocol.wire import codec
from tests.simulation import memoization
from tests.support import fixtures

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
_DOCUMENTS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(_DOCUMENTS)
def test_canonical_bytes_are_those_of_rfc_8785(document: Any) -> None:
    assert memoization.dumps(document) == rfc8785.dumps(document)


@pytest.mark.parametrize(
    "document", [{"a": 2**53}, {"a": [1.5, 1e-7, -0.0]}, {"ﬁ": 1, "𝒜": 2}, {"a": {"b": 1.0}}]
)
def test_values_that_json_encodes_differently_are_not_plain(document: Any) -> None:
    assert not memoization.plain(document)


def test_message_is_decoded_once_and_rejections_are_cached() -> None:
    net = fixtures.network()
    payload = fixtures.task(net).envelope.encode()
    with memoization.installed():
        assert codec.decode(payload, net.id) is codec.decode(payload, net.id)
        for _ in range(2):
            with pytest.raises(Rejected) as refused:
                codec.decode(payload, "0" * 16)
            assert refused.value.reason is Rejection.WRONG_NETWORK
    assert codec.decode(payload, net.id) is not codec.decode(payload, net.id)
