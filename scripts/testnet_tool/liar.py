"""A node that lies: `helium run`, but its executor alters every waveform before it is voted for.

    python -m scripts.testnet_tool.liar 1 --network network.json --key key.pem …

For demonstrations and tests only. The first argument chooses the lie; the flags are those of
`helium run`. The manifest is recomputed, so that the lie is consistent in itself: only comparison
with the others' results can tell.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from executor.job import Execution, Job
from node.cli.commands.run import run, serve
from node.execution.queue import Executor, Readiness
from protocol.manifest import CHUNK_BYTES

Samples = NDArray[np.float32]


def quieter(samples: Samples) -> Samples:
    """A tenth quieter."""
    return samples * np.float32(0.9)


def backwards(samples: Samples) -> Samples:
    """Played backwards."""
    return samples[::-1].copy()


def one_bit(samples: Samples) -> Samples:
    """One sample changed in its last bit."""
    altered = samples.copy()
    altered[len(altered) // 2] = np.nextafter(altered[len(altered) // 2], np.float32(2))
    return altered


def upside_down(samples: Samples) -> Samples:
    """Every sample's sign turned."""
    return -samples


def silent(samples: Samples) -> Samples:
    """Nothing but zeros."""
    return np.zeros_like(samples)


LIES: tuple[Callable[[Samples], Samples], ...] = (
    quieter,
    backwards,
    one_bit,
    upside_down,
    silent,
)


def lie_of(index: int) -> Callable[[Samples], Samples]:
    """Return the lie of liar `index`, from 1: another for each of the first five, then louder."""
    if index <= len(LIES):
        return LIES[index - 1]
    return lambda samples: samples * np.float32(1 + index / 100)


class Liar:
    """An executor whose results are altered after they were honestly computed."""

    def __init__(self, honest: Executor, lie: Callable[[Samples], Samples]) -> None:
        self._honest, self._lie = honest, lie

    async def start(self) -> Readiness:
        """Start the honest one."""
        return await self._honest.start()

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        """Run the job, then alter its files and describe them anew."""
        execution = await self._honest.run(job, seconds, progress)
        manifest: Any = execution.outcome.get("result")
        if manifest is None:
            return execution
        outputs = [
            self._altered(file, output)
            for file, output in zip(execution.files, manifest["outputs"], strict=True)
        ]
        return replace(execution, outcome={"result": {**manifest, "outputs": outputs}})

    async def close(self) -> None:
        """Close the honest one."""
        await self._honest.close()

    def _altered(self, file: Path, output: dict[str, Any]) -> dict[str, Any]:
        samples = np.fromfile(file, "<f4")
        payload = (self._lie(samples) + np.float32(0)).astype("<f4").tobytes()
        file.write_bytes(payload)
        chunks = [
            payload[start : start + CHUNK_BYTES] for start in range(0, len(payload), CHUNK_BYTES)
        ]
        return {
            **output,
            "sha256": hashlib.sha256(payload).hexdigest(),
            "chunks": [hashlib.sha256(chunk).hexdigest() for chunk in chunks],
        }


def main() -> None:
    """Run the liar of the index given."""
    index = int(sys.argv[1])
    command = click.Command("liar", params=run.params, callback=None)

    def lying(config: Path | None, **flags: object) -> None:
        from node.cli import options

        serve(options.settings(flags, config), lambda honest: Liar(honest, lie_of(index)))

    command.callback = lying
    command.main(sys.argv[2:], prog_name="liar")


if __name__ == "__main__":
    main()
