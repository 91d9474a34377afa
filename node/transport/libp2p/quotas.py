"""What peers may spend of this node: rate limits, the keys they are kept by, and idle peers.

Used in the trio thread only.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

import trio
from libp2p.abc import IMuxedConn

from node.admission.rate_limits import TokenBuckets
from node.config.limits import Limits

# Bursts. A node that was away gets ten seconds' worth of gossip at once when it comes back.
MESSAGE_BURST_SECONDS = 10.0
STREAM_BURST_SECONDS = 10.0
TASK_BURST_SECONDS = 10.0
# Shorter than the others: two seconds' worth of bytes is memory that is filled at once.
BYTE_BURST_SECONDS = 2.0
# Addresses whose keys are kept: parsing one costs 6 us, and each stream needs it twice. Some
# 200 KB.
PARSED_ADDRESSES = 1024
# A host on the Internet usually gets a whole IPv6 /64, and can use every address in it.
IPV6_PREFIX_BITS = 64


class Quotas:
    """The rate limits that all connections of a transport draw from.

    `counts` counts for the operator how often each limit was met, `traffic` what passes.
    """

    def __init__(
        self, limits: Limits, counts: Counter[str], traffic: Counter[str] | None = None
    ) -> None:
        now = trio.current_time
        self.limits, self.counts = limits, counts
        self.traffic: Counter[str] = Counter() if traffic is None else traffic
        self.messages = TokenBuckets(limits.messages_per_second, MESSAGE_BURST_SECONDS, now)
        self.streams = TokenBuckets(limits.streams_per_second, STREAM_BURST_SECONDS, now)
        self.read_bytes = TokenBuckets(limits.bytes_per_second, BYTE_BURST_SECONDS, now)
        self.written_bytes = TokenBuckets(limits.bytes_per_second, BYTE_BURST_SECONDS, now)
        self.tasks = TokenBuckets(limits.submissions_per_minute / 60.0, TASK_BURST_SECONDS, now)

    async def throttle(self, buckets: TokenBuckets, key: str, amount: float, counter: str) -> None:
        """Take tokens and wait until the debt is paid: a peer that is too fast is not read from."""
        seconds = buckets.take_with_debt(key, amount)
        if seconds > 0:
            self.counts[counter] += 1
            await trio.sleep(seconds)


def rate_limit_key(connection: IMuxedConn) -> str:
    """Return the key that a connection is charged to: its address, or on loopback its peer id.

    Peer ids are free to make, so that a limit per peer id would bind nobody. On loopback all peers
    of a testnet share one address.
    """
    remote = connection.get_remote_address()
    address = rate_limit_address(remote[0]) if remote else ""
    return str(connection.peer_id) if not address or is_loopback(address) else address


@lru_cache(maxsize=PARSED_ADDRESSES)
def rate_limit_address(host: str) -> str:
    """Return what stands for one remote party: an IPv4 address, or the /64 of an IPv6 address.

    Anything that is not an IP address is returned as it is.
    """
    # A zone ("fe80::1%eth0") names an interface of this machine, and nothing of the remote party.
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    # All IPv4 peers of a dual-stack socket ("::ffff:192.0.2.1") would share one /64.
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return str(address)
    return str(ip_network((address, IPV6_PREFIX_BITS), strict=False))


@lru_cache(maxsize=PARSED_ADDRESSES)
def is_loopback(address: str) -> bool:
    """Return whether a result of `rate_limit_address` is this very machine."""
    try:
        return ip_network(address).is_loopback
    except ValueError:
        return False


class IdleTracker:
    """Tracks when each inbound peer was last active, to disconnect idle ones.

    A peer is idle that has made no request and sent no gossip for `seconds`. `now` is a monotonic
    clock in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self.seconds, self._now = seconds, now
        self._last_active: dict[str, float] = {}
        self._open_requests: Counter[str] = Counter()

    def add(self, peer: str) -> None:
        """Track a peer that has connected."""
        self._last_active[peer] = self._now()

    def remove(self, peer: str) -> None:
        """Forget a peer whose last connection is closed."""
        self._last_active.pop(peer, None)

    def touch(self, peer: str) -> None:
        """Note that a peer was active now; one that is not tracked stays so."""
        if peer in self._last_active:
            self._last_active[peer] = self._now()

    @contextmanager
    def request(self, peer: str) -> Iterator[None]:
        """Keep a peer from being idle while the block runs."""
        self._open_requests[peer] += 1
        try:
            yield
        finally:
            self._open_requests[peer] -= 1
            # A counter keeps its zeros: one for each peer that ever came.
            if not self._open_requests[peer]:
                del self._open_requests[peer]
            self.touch(peer)

    def idle_peers(self) -> list[str]:
        """Return the peers that are idle now."""
        since = self._now() - self.seconds
        return [
            peer
            for peer, last in self._last_active.items()
            if last < since and peer not in self._open_requests
        ]
