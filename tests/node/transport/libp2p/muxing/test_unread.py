"""The bound on the unread bytes of all connections."""

from collections import Counter

from node.transport.libp2p.muxing.unread import UNREAD_CHECK, UNREAD_TOTAL, UnreadBytes


class Connection:
    """A connection with a fixed number of unread bytes."""

    def __init__(self, size: int, rate_limit_key: str) -> None:
        self.size, self.rate_limit_key, self.closed = size, rate_limit_key, False

    def unread(self) -> int:
        return self.size

    def close_soon(self) -> None:
        self.closed = True


def test_above_the_bound_the_key_with_the_most_unread_bytes_loses_a_connection() -> None:
    counts: Counter[str] = Counter()
    unread = UnreadBytes(counts)
    honest = Connection(UNREAD_CHECK, "honest")
    hoarder = Connection(UNREAD_TOTAL, "hoarder")
    unread.add(honest)
    unread.add(hoarder)
    unread.count_read(UNREAD_CHECK - 1)
    assert (honest.closed, hoarder.closed) == (False, False)
    unread.count_read(1)
    assert (honest.closed, hoarder.closed) == (False, True)
    assert counts == {"unread-cut": 1}


def test_of_many_connections_of_one_key_as_many_are_closed_as_needed() -> None:
    counts: Counter[str] = Counter()
    unread = UnreadBytes(counts)
    honest = Connection(UNREAD_TOTAL // 8, "honest")
    sizes = [UNREAD_TOTAL // 16] * 15 + [UNREAD_TOTAL // 10]
    hoarded = [Connection(size, "hoarder") for size in sizes]
    for connection in (honest, *hoarded):
        unread.add(connection)
    unread.count_read(UNREAD_CHECK)
    assert not honest.closed
    assert hoarded[-1].closed
    remaining = sum(connection.size for connection in (honest, *hoarded) if not connection.closed)
    assert UNREAD_TOTAL * 15 // 16 <= remaining <= UNREAD_TOTAL
    assert counts == {"unread-cut": sum(connection.closed for connection in hoarded)}


def test_within_the_bound_no_connection_is_closed() -> None:
    unread = UnreadBytes(Counter())
    connections = [Connection(UNREAD_TOTAL // 2, key) for key in "ab"]
    for connection in connections:
        unread.add(connection)
    unread.count_read(UNREAD_CHECK)
    assert not any(connection.closed for connection in connections)
