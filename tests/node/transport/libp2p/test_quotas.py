"""Who pays, and who is closed when too much waits unread."""

from collections import Counter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.config.limits import Limits
from node.transport.libp2p.quotas import (
    UNREAD_CHECK,
    UNREAD_TOTAL,
    Quotas,
    UnreadBytes,
    rate_limit_key,
)


class Connection:
    """What quotas needs of a muxed connection."""

    def __init__(
        self, address: tuple[str, int] | None = None, unread: int = 0, rate_limit_key: str = ""
    ) -> None:
        self.peer_id, self.closed, self.waiting, self._address = "peer", False, unread, address
        self.rate_limit_key = rate_limit_key

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._address

    def unread(self) -> int:
        return self.waiting

    def close_soon(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("address", "who"),
    [
        (None, "peer"),
        (("127.0.0.1", 1), "peer"),
        (("203.0.113.7", 1), "203.0.113.7"),
        (("2001:db8::1", 1), "2001:db8::/64"),
    ],
)
def test_an_address_pays_for_all_its_keys(address: tuple[str, int] | None, who: str) -> None:
    connection: Any = Connection(address)
    assert rate_limit_key(connection) == who


def test_of_too_much_unread_the_worst_pays() -> None:
    counts: Counter[str] = Counter()
    unread = UnreadBytes(counts)
    honest = Connection(unread=UNREAD_CHECK, rate_limit_key="honest")
    hoarder = Connection(unread=UNREAD_TOTAL, rate_limit_key="hoarder")
    unread.add(honest)
    unread.add(hoarder)
    told = []
    for count in (UNREAD_CHECK - 1, 1):
        unread.came(count)
        told.append((honest.closed, hoarder.closed))
    assert told == [(False, False), (False, True)]
    assert counts == {"unread-cut": 1}


def test_whoever_hoards_on_many_connections_loses_as_many_as_it_takes() -> None:
    counts: Counter[str] = Counter()
    unread = UnreadBytes(counts)
    honest = Connection(unread=UNREAD_TOTAL // 8, rate_limit_key="honest")
    sizes = [UNREAD_TOTAL // 16] * 15 + [UNREAD_TOTAL // 10]
    hoarded = [Connection(unread=size, rate_limit_key="hoarder") for size in sizes]
    for each in (honest, *hoarded):
        unread.add(each)
    unread.came(UNREAD_CHECK)
    assert not honest.closed
    assert hoarded[-1].closed
    left = sum(each.waiting for each in (honest, *hoarded) if not each.closed)
    assert UNREAD_TOTAL * 15 // 16 <= left <= UNREAD_TOTAL
    assert counts == {"unread-cut": sum(each.closed for each in hoarded)}


def test_what_is_within_the_bound_is_left_alone() -> None:
    unread = UnreadBytes(Counter())
    both = [Connection(unread=UNREAD_TOTAL // 2, rate_limit_key=name) for name in "ab"]
    for each in both:
        unread.add(each)
    unread.came(UNREAD_CHECK)
    assert not any(each.closed for each in both)


def test_whoever_is_too_fast_waits_and_is_counted() -> None:
    counts: Counter[str] = Counter()

    async def main() -> float:
        quotas = Quotas(Limits(peer_messages=10), counts)
        began = trio.current_time()
        await quotas.pay(quotas.messages, "a", 100, "slowed")
        assert trio.current_time() == began
        await quotas.pay(quotas.messages, "b", 150, "slowed")
        return trio.current_time() - began

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == pytest.approx(5.0)
    assert counts == {"slowed": 1}
