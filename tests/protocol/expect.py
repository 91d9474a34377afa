"""How these tests say what they expect."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from protocol.errors import Rejected, Rejection

PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)
"""The same examples in every run, however slow the machine is."""


@contextmanager
def rejected(reason: Rejection, detail: str = "") -> Iterator[None]:
    """The block must be refused for this reason, with `detail` in what is said of it."""
    with pytest.raises(Rejected) as caught:
        yield
    assert caught.value.reason is reason, caught.value
    assert detail in caught.value.detail


def reason_of(call: Callable[[], object]) -> Rejection | None:
    """Why a call is refused; None if it is not. Anything else that it raises is raised."""
    try:
        call()
    except Rejected as refused:
        return refused.reason
    return None
