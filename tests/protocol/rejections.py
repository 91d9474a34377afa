"""Assertions on rejections."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from protocol.errors import Rejected, Rejection

PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)
"""Hypothesis settings: the same examples in every run, without a deadline."""


@contextmanager
def rejected(reason: Rejection, detail: str = "") -> Iterator[None]:
    """Assert that the block raises Rejected for this reason, with `detail` in its detail."""
    with pytest.raises(Rejected) as caught:
        yield
    assert caught.value.reason is reason, caught.value
    assert detail in caught.value.detail


def reason_of(call: Callable[[], object]) -> Rejection | None:
    """Return the reason of the rejection that a call raises; None if it raises none."""
    try:
        call()
    except Rejected as refused:
        return refused.reason
    return None
