"""Staying connected with the peers that the settings name."""

import asyncio
import random
from collections.abc import Sequence

import structlog

from node.transport.interface import Transport

log = structlog.get_logger("dialer")

FIRST_PAUSE = 0.5  # seconds between tries, doubled up to the longest
LONGEST_PAUSE = 15.0
CHECK = 1.0  # seconds after which a lost connection is noticed here at the latest


def peer_in(address: str) -> str:
    """Return the peer id that a multiaddr ends in. Raises ValueError naming the address."""
    rest, separator, peer = address.rpartition("/p2p/")
    if not separator or not rest or not peer or "/" in peer:
        raise ValueError(f"{address!r} must be a multiaddr that ends in /p2p/<peer id>")
    return peer


async def keep_connected(
    transport: Transport, addresses: Sequence[str], rng: random.Random
) -> None:
    """Dial every address, and again whenever its peer is gone, for ever.

    Pauses are drawn at random so that two nodes do not dial each other in step.
    """
    async with asyncio.TaskGroup() as group:
        for address in addresses:
            if peer_in(address) != transport.peer:
                group.create_task(_keep(transport, address, rng))


async def _keep(transport: Transport, address: str, rng: random.Random) -> None:
    peer, pause = peer_in(address), FIRST_PAUSE
    while True:
        if peer in transport.peers():
            pause = FIRST_PAUSE
            await asyncio.sleep(CHECK)
            continue
        try:
            await transport.dial(address)
        except ConnectionError as error:
            log.debug("not reachable", address=address, error=str(error))
            await asyncio.sleep(pause * rng.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)
