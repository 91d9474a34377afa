"""Requesters who submit tasks without end, and what they were told."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from node.client.client import Client, NoAgreement, NoNodeReachable, TaskRejected
from node.sync.task_tracker import UnknownTask
from protocol.network import Network
from scripts.chaos_tool.noted import Noted

WIDTH = 3  # tasks of one requester at a time
DEADLINE = 1800  # seconds; no task is to expire because its nodes were away
RETRY = 0.5  # seconds after a failure, of which there is one for each fault met
REACHED_AGAIN = (NoNodeReachable, TaskRejected, UnknownTask, ConnectionError)


@asynccontextmanager
async def requesting(
    network: Network, addresses: Sequence[str], dice: random.Random, noted: Noted
) -> AsyncIterator[None]:
    """Submit tasks to the nodes at `addresses` while the block runs."""
    asking = asyncio.create_task(_request(network, addresses, dice, noted))
    try:
        yield
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


async def _request(
    network: Network, addresses: Sequence[str], dice: random.Random, noted: Noted
) -> None:
    while True:
        with contextlib.suppress(NoNodeReachable):
            async with Client.connect(network, addresses) as client, asyncio.TaskGroup() as group:
                for _ in range(WIDTH):
                    group.create_task(_submit_on(client, dice, noted))
        await asyncio.sleep(RETRY)


async def _submit_on(client: Client, dice: random.Random, noted: Noted) -> None:
    while True:
        try:
            await submit(client, dice, noted)
        except NoAgreement as ended:
            noted.unlucky[str(ended.state)] += 1
        except REACHED_AGAIN as failure:
            noted.unlucky[type(failure).__name__] += 1
            await asyncio.sleep(RETRY)


async def submit(client: Client, dice: random.Random, noted: Noted) -> None:
    """Submit one task, and wait for its certificate."""
    args = {
        "model": "helium/embedded-music",
        "prompt": "a storm",
        "seed": dice.randrange(2**32),
        "generation_config": {"max_new_tokens": 53},
    }
    submission = await client.submit("text-to-music", args, deadline=DEADLINE)
    noted.submitted.add(submission.id)
    certificate = await submission.tracker.certificate()
    noted.certified[submission.id] = certificate.votes[0].digest
