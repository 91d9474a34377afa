"""Tasks that wait for one model run together, and are certified with the bytes of single runs."""

import asyncio
from typing import Any

from executor.audio.manifest import canonical_frames
from executor.engine.matrices import Kind
from executor.engine.music import MusicModel
from executor.models.folders import EMBEDDED, SHIPPED
from executor.tasks.arguments import sequence_seeds
from node.client.client import Client
from tests.integration.conftest import Running, task

# The first one is long, so that the others wait for it.
TOKENS = (1500, 60, 150, 90, 240, 30)


async def test_tasks_that_wait_for_one_model_are_certified(three: Running) -> None:
    tasks: list[Any] = [task(seed=900 + n, max_new_tokens=count) for n, count in enumerate(TOKENS)]
    async with Client.connect(three.network, three.daemons.addresses) as client:
        submissions = [await client.submit("text-to-music", args) for args in tasks]
        results = await asyncio.gather(*(submission.result() for submission in submissions))
    model = MusicModel(SHIPPED / EMBEDDED, Kind.FLOAT32)
    for args, count, result in zip(tasks, TOKENS, results, strict=True):
        seeds = sequence_seeds(args["seed"], 1)
        request = model.request(args["prompt"], seeds, {"max_new_tokens": count})
        (alone,) = model.generate(request).tokens
        assert result.audio.tobytes() == canonical_frames(model.decode(alone)).tobytes()
    together = [node.log.read_text().count("tasks run together") for node in three.nodes]
    assert sum(together) > 0, "all ran one by one on every node"
