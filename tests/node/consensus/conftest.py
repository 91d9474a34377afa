"""What the tests of this node's part in agreement share."""

import pytest

from protocol.network import Network
from tests.support import fixtures


@pytest.fixture
def net() -> Network:
    """Three members: all of them are the committee of every attempt."""
    return fixtures.network(3)
