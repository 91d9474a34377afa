"""A real node that lies only about tasks whose prompt asks for it: `lie 1`, `lie seed`, ...

    python -m tests.integration.workers.liar --network network.json --key key.pem ...

A network with such a node also serves the tests that need honest nodes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import click

from executor.job import Execution, Job
from node.cli import options
from node.cli.commands.run import run, serve
from node.execution.queue import Executor, Readiness
from protocol.network import Model
from scripts.testnet_tool.liar import Liar, lie_of

PROMPT = re.compile(r"lie (\d+)")
# Lies of nodes that compute something else than the task, by the prompt: the changed arguments.
OTHER_TASKS: Mapping[str, Mapping[str, object]] = {
    "lie seed": {"seed": 43},
    "lie quantised": {"quantize_bits": 8},
}


class PromptedLiar:
    """An executor that tells the lie with the number in the prompt."""

    def __init__(self, honest: Executor) -> None:
        self._honest = honest

    @property
    def max_together(self) -> int:
        return self._honest.max_together

    async def start(self) -> Readiness:
        return await self._honest.start()

    async def warm(self, model: Model) -> None:
        await self._honest.warm(model)

    def is_alive(self) -> bool:
        return self._honest.is_alive()

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        text = str(job.args.get("prompt"))
        if text in OTHER_TASKS:
            job = replace(job, args={**job.args, **OTHER_TASKS[text]})
        prompt = PROMPT.fullmatch(text)
        executor = Liar(self._honest, lie_of(int(prompt[1]))) if prompt else self._honest
        return await executor.run(job, seconds, progress)

    async def close(self) -> None:
        await self._honest.close()


def main() -> None:
    """Run the node until SIGTERM or SIGINT."""

    def lying(config: Path | None, **flags: object) -> None:
        serve(options.settings(flags, config), PromptedLiar)

    click.Command("liar", params=run.params, callback=lying).main()


if __name__ == "__main__":
    main()
