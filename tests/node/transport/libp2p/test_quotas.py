"""Rate limits, the keys that connections are charged to, and idle peers."""

from collections import Counter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.config.limits import Limits
from node.transport.libp2p.quotas import (
    IdleTracker,
    Quotas,
    is_loopback,
    rate_limit_address,
    rate_limit_key,
)
from node.transport.libp2p.swarm import UPGRADES_PER_ADDRESS
from tests.node.admission.clock import Clock


def test_a_peer_over_its_rate_waits_and_is_counted() -> None:
    counts: Counter[str] = Counter()

    async def main() -> float:
        quotas = Quotas(Limits(messages_per_second=10), counts)
        began = trio.current_time()
        await quotas.throttle(quotas.messages, "a", 100, "slowed")
        assert trio.current_time() == began
        await quotas.throttle(quotas.messages, "b", 150, "slowed")
        return trio.current_time() - began

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == pytest.approx(5.0)
    assert counts == {"slowed": 1}


# Keys


class Connection:
    """The part of a muxed connection that its key depends on."""

    peer_id = "peer"

    def __init__(self, address: tuple[str, int] | None) -> None:
        self._address = address

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._address


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (None, "peer"),
        (("127.0.0.1", 1), "peer"),
        (("203.0.113.7", 1), "203.0.113.7"),
        (("2001:db8::1", 1), "2001:db8::/64"),
    ],
)
def test_the_rate_limit_key_is_the_address_and_on_loopback_the_peer(
    address: tuple[str, int] | None, key: str
) -> None:
    connection: Any = Connection(address)
    assert rate_limit_key(connection) == key


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::7", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("", ""),
        ("/a/socket", "/a/socket"),
    ],
)
def test_an_ipv6_host_stands_for_its_64_bit_prefix(host: str, address: str) -> None:
    assert rate_limit_address(host) == address


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(rate_limit_address(host))


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::1", "192.168.0.1", "", "/a/socket"])
def test_addresses_that_are_not_loopback(host: str) -> None:
    assert not is_loopback(rate_limit_address(host))


def test_the_limits_leave_connections_for_other_addresses_and_for_dialling() -> None:
    limits = Limits()
    assert UPGRADES_PER_ADDRESS < limits.max_connections_per_address < limits.local_connections
    assert limits.local_connections < limits.inbound_connections < limits.max_connections


# Idle peers


def test_a_peer_without_requests_and_gossip_becomes_idle() -> None:
    clock = Clock()
    tracker = IdleTracker(10, clock)
    for peer in ("silent", "requesting", "gossiping", "gone"):
        tracker.add(peer)
    clock.now += 9
    with tracker.request("requesting"):
        clock.now += 9
        tracker.touch("gossiping")
        tracker.remove("gone")
        assert tracker.idle_peers() == ["silent"]
    clock.now += 9
    assert tracker.idle_peers() == ["silent"]
    clock.now += 9
    assert tracker.idle_peers() == ["silent", "requesting", "gossiping"]


def test_a_dialled_peer_is_never_idle() -> None:
    clock = Clock()
    tracker = IdleTracker(10, clock)
    tracker.touch("dialled")
    with tracker.request("dialled"):
        pass
    clock.now += 100
    assert tracker.idle_peers() == []
    assert not tracker._open_requests
