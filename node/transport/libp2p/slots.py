"""How many of something each key has at a time, and which key an address has."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address, ip_network

IPV6_SITE = 64  # bits; whoever has one IPv6 address has its whole /64, and could take all of it


class Tally:
    """Counts per key; a key that has none takes no memory."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @contextmanager
    def one_more(self, key: str) -> Iterator[int]:
        """Count one more while the block runs; gives how many the key has, this one included."""
        self._counts[key] += 1
        try:
            yield self._counts[key]
        finally:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]

    def __len__(self) -> int:
        """Return how many keys have any."""
        return len(self._counts)


def rate_limit_address(host: str) -> str:
    """Return what stands for one remote party: an IPv4 address, or the /64 of an IPv6 address.

    What is no IP address stands for itself.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return str(address)
    return str(ip_network((address, IPV6_SITE), strict=False))


def is_loopback(origin: str) -> bool:
    """Return whether an origin is this very machine."""
    try:
        return ip_network(origin).is_loopback
    except ValueError:
        return False
