"""Keeps connections to the peers that the settings name."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeAlias

from node.log import get_logger
from node.transport.interface import Transport

log = get_logger("dialer")

# Seconds between attempts to dial a peer, doubled after each failure.
MIN_BACKOFF = 0.5
MAX_BACKOFF = 15.0
# Seconds before the next address of a peer is tried too, as in Happy Eyeballs (RFC 8305).
NEXT_ADDRESS_SECONDS = 0.25
# Seconds between checks whether a connection was lost.
CHECK_SECONDS = 1.0


# Of some peers, those to connect to, given those that do not answer.
Wants: TypeAlias = Callable[[Sequence[str], Collection[str]], Collection[str]]


def peer_in(address: str) -> str:
    """Return the peer id at the end of a multiaddr. Raises ValueError naming the address."""
    rest, separator, peer = address.rpartition("/p2p/")
    if not separator or not rest or not peer or "/" in peer:
        raise ValueError(f"{address!r} must be a multiaddr that ends in /p2p/<peer id>")
    return peer


class DialFailures(dict[str, str]):
    """Why the last dial of each address failed; one that has connected has none."""

    def describe(self, addresses: Sequence[str]) -> str:
        """Return the addresses, each with why it was not reached."""
        reasons = {address: self.get(address, "nothing answered in time") for address in addresses}
        return "; ".join(f"{address}: {reason}" for address, reason in reasons.items())


async def keep_connected(
    transport: Transport,
    addresses: Sequence[str],
    rng: random.Random,
    failures: DialFailures | None = None,
    wants: Wants = lambda peers, unreachable: peers,
) -> None:
    """Dial every peer that is wanted, and again whenever its connection is lost. Never returns.

    `wants` is asked once a second for all peers that are not connected: the settings may name
    thousands, of which few are wanted.
    The back-off is randomised, so that two nodes do not dial each other at the same time.
    `failures` is kept up to date.
    """
    failures = DialFailures() if failures is None else failures
    by_peer: dict[str, list[str]] = {}
    for address in dict.fromkeys(addresses):
        by_peer.setdefault(peer_in(address), []).append(address)
    by_peer.pop(transport.peer, None)
    unreachable: set[str] = set()
    dialling: set[str] = set()

    async def connect(peer: str) -> None:
        dial = partial(_dial_any, transport, by_peer[peer], failures)
        await _connect(transport, peer, dial, rng, unreachable, wants)
        unreachable.discard(peer)
        dialling.discard(peer)

    async with asyncio.TaskGroup() as group:
        while True:
            busy = transport.peers() | dialling
            wanted = wants([peer for peer in by_peer if peer not in busy], unreachable)
            dialling.update(wanted)
            for peer in wanted:
                group.create_task(connect(peer))
            await asyncio.sleep(CHECK_SECONDS)


async def _connect(
    transport: Transport,
    peer: str,
    dial: Callable[[], Awaitable[bool]],
    rng: random.Random,
    unreachable: set[str],
    wants: Wants,
) -> None:
    """Dial until the peer is connected, or is not wanted any more."""
    backoff = MIN_BACKOFF
    while peer not in transport.peers() and wants([peer], unreachable):
        if not await dial():
            unreachable.add(peer)
            await asyncio.sleep(backoff * rng.uniform(0.5, 1.0))
            backoff = min(2 * backoff, MAX_BACKOFF)


async def _dial_any(transport: Transport, addresses: Sequence[str], failures: DialFailures) -> bool:
    """Dial a peer's addresses until one connects. Returns whether one did.

    An address that does not answer delays the next ones by `NEXT_ADDRESS_SECONDS` only.
    """
    dials = [
        asyncio.create_task(_dial_after(index * NEXT_ADDRESS_SECONDS, transport, address, failures))
        for index, address in enumerate(addresses)
    ]
    try:
        for dial in asyncio.as_completed(dials):
            if await dial:
                return True
        return False
    finally:
        for task in dials:
            task.cancel()
        await asyncio.gather(*dials, return_exceptions=True)


async def _dial_after(
    seconds: float, transport: Transport, address: str, failures: DialFailures
) -> bool:
    await asyncio.sleep(seconds)
    try:
        await transport.dial(address)
    except ConnectionError as error:
        log.debug("dial failed", address=address, error=str(error))
        failures[address] = str(error)
        return False
    failures.pop(address, None)
    return True
