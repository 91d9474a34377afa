import pytest

from node.config.limits import Limits
from node.transport.libp2p.slots import Tally, is_loopback, rate_limit_address


def test_a_tally_counts_per_key_and_forgets_what_is_over() -> None:
    tally = Tally()
    with tally.one_more("a") as first, tally.one_more("a") as second, tally.one_more("b") as other:
        assert (first, second, other) == (1, 2, 1)
        assert len(tally) == 2
    assert len(tally) == 0
    with tally.one_more("a") as again:
        assert again == 1


def test_an_exception_gives_the_place_back() -> None:
    tally = Tally()
    with pytest.raises(LookupError), tally.one_more("a"):
        raise LookupError
    assert len(tally) == 0


@pytest.mark.parametrize(
    ("host", "expected"),
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
def test_the_origin_of_an_address(host: str, expected: str) -> None:
    assert rate_limit_address(host) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_local(host: str) -> None:
    assert is_loopback(rate_limit_address(host))


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::1", "192.168.0.1", "", "/a/socket"])
def test_nothing_else_is_local(host: str) -> None:
    assert not is_loopback(rate_limit_address(host))


def test_the_limits_leave_slots_for_other_addresses_and_for_dials() -> None:
    limits = Limits()
    assert limits.address_upgrades < limits.address_connections < limits.local_connections
    assert limits.local_connections < limits.inbound_connections < limits.max_connections
