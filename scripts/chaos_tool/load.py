"""Load generators: requesters that submit tasks without end and record the answers."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from node.client.client import Client
from node.client.nodes import NoNodeReachable, TaskRejected
from node.sync.task_tracker import NoAgreement, UnknownTask
from protocol.network import Network
from protocol.wire.encoding import Json
from scripts.chaos_tool.checks import Observations

# Tasks that one requester has open at a time.
CONCURRENCY = 3
# Seconds. Long enough that no task expires because its committee was down.
DEADLINE = 1800
# Seconds to wait after a failure. Every injected fault causes a few failures.
RETRY_SECONDS = 0.5
# Failures that an injected fault explains. Anything else ends the run.
EXPECTED_FAILURES = (NoNodeReachable, TaskRejected, UnknownTask, ConnectionError)


@asynccontextmanager
async def submitting(
    network: Network, addresses: Sequence[str], rng: random.Random, observed: Observations
) -> AsyncIterator[None]:
    """Submit tasks to the nodes at `addresses` during the block."""
    requester = asyncio.create_task(_submit_forever(network, addresses, rng, observed))
    try:
        yield
    finally:
        requester.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await requester


async def _submit_forever(
    network: Network, addresses: Sequence[str], rng: random.Random, observed: Observations
) -> None:
    while True:
        with contextlib.suppress(NoNodeReachable):
            async with Client.connect(network, addresses) as client, asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(_submit_on(client, rng, observed))
        await asyncio.sleep(RETRY_SECONDS)


async def _submit_on(client: Client, rng: random.Random, observed: Observations) -> None:
    while True:
        try:
            await submit(client, rng, observed)
        except NoAgreement as ended:
            observed.failures[str(ended.state)] += 1
        except EXPECTED_FAILURES as failure:
            observed.failures[type(failure).__name__] += 1
            await asyncio.sleep(RETRY_SECONDS)


async def submit(client: Client, rng: random.Random, observed: Observations) -> None:
    """Submit one task and wait for its certificate."""
    args: dict[str, Json] = {
        "model": "helium/embedded-music",
        "prompt": "a storm",
        "seed": rng.randrange(2**32),
        "generation_config": {"max_new_tokens": 53},
    }
    submission = await client.submit("text-to-music", args, deadline=DEADLINE)
    observed.submitted.add(submission.id)
    certificate = await submission.tracker.certificate()
    observed.certified[submission.id] = certificate.votes[0].digest
