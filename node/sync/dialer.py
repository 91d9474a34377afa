"""Keeps connections to the peers that the settings name."""

import asyncio
import random
from collections.abc import Sequence

import structlog

from node.transport.interface import Transport

log = structlog.get_logger("dialer")

# Seconds between attempts to dial a peer, doubled after each failure.
MIN_BACKOFF = 0.5
MAX_BACKOFF = 15.0
# Seconds between checks whether a connection was lost.
CHECK_SECONDS = 1.0


def peer_in(address: str) -> str:
    """Return the peer id at the end of a multiaddr. Raises ValueError naming the address."""
    rest, separator, peer = address.rpartition("/p2p/")
    if not separator or not rest or not peer or "/" in peer:
        raise ValueError(f"{address!r} must be a multiaddr that ends in /p2p/<peer id>")
    return peer


async def keep_connected(
    transport: Transport, addresses: Sequence[str], rng: random.Random
) -> None:
    """Dial every address, and dial again whenever its connection is lost. Never returns.

    The back-off is randomised, so that two nodes do not dial each other at the same time.
    """
    async with asyncio.TaskGroup() as group:
        for address in addresses:
            if peer_in(address) != transport.peer:
                group.create_task(_keep_connected(transport, address, rng))


async def _keep_connected(transport: Transport, address: str, rng: random.Random) -> None:
    peer, backoff = peer_in(address), MIN_BACKOFF
    while True:
        if peer in transport.peers():
            backoff = MIN_BACKOFF
            await asyncio.sleep(CHECK_SECONDS)
            continue
        try:
            await transport.dial(address)
        except ConnectionError as error:
            log.debug("dial failed", address=address, error=str(error))
            await asyncio.sleep(backoff * rng.uniform(0.5, 1.0))
            backoff = min(2 * backoff, MAX_BACKOFF)
