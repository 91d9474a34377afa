"""A node that lies: `helium run` with an executor that alters every waveform.

    python -m scripts.testnet_tool.liar 1 --network network.json --key key.pem …

For demonstrations and tests only. The first argument chooses the lie; the flags are those of
`helium run`. The manifest is recomputed from the altered waveform. The result is therefore valid
by itself, and only a comparison with the results of other nodes reveals the lie.
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

from executor.audio.manifest import TOKENS_SUFFIX
from executor.job import Execution, Job
from node.cli.commands.run import run, serve
from node.execution.queue import Executor, Readiness
from protocol.manifest import CHUNK_BYTES
from protocol.network import Model

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


# The docstrings of these functions are shown to the user.
LIES: tuple[Callable[[Samples], Samples], ...] = (
    quieter,
    backwards,
    one_bit,
    upside_down,
    silent,
)


def lie_of(index: int) -> Callable[[Samples], Samples]:
    """Return the lie of the liar with this number, from 1. No two liars tell the same lie."""
    if index <= len(LIES):
        return LIES[index - 1]
    return lambda samples: samples * np.float32(1 + index / 100)


def describe_lie(index: int) -> str:
    """Return what the liar with this number does to a waveform."""
    return (lie_of(index).__doc__ or "Louder.").rstrip(".").lower()


class Liar:
    """An executor that computes each result honestly and then alters it."""

    def __init__(self, honest: Executor, lie: Callable[[Samples], Samples]) -> None:
        self._honest, self._lie = honest, lie

    @property
    def max_together(self) -> int:
        """As the honest executor."""
        return self._honest.max_together

    async def start(self) -> Readiness:
        """Start the honest executor."""
        return await self._honest.start()

    async def warm(self, model: Model) -> None:
        """Get the honest executor ready for a model."""
        await self._honest.warm(model)

    def is_alive(self) -> bool:
        """Return whether the honest executor lives."""
        return self._honest.is_alive()

    async def run(self, job: Job, seconds: float, progress: Callable[[float], None]) -> Execution:
        """Run the job, alter its files, and replace the hashes in its manifest."""
        execution = await self._honest.run(job, seconds, progress)
        manifest: Any = execution.outcome.get("result")
        if manifest is None:
            return execution
        # Tokens and work stay those of the honest execution, as with whoever changes the sound.
        files = [file for file in execution.files if file.suffix != TOKENS_SUFFIX]
        outputs = [
            self._altered(file, output)
            for file, output in zip(files, manifest["outputs"], strict=True)
        ]
        lie: dict[str, object] = {"result": {**manifest, "outputs": outputs}}
        return replace(execution, outcome=execution.outcome | lie)

    async def close(self) -> None:
        """Close the honest executor."""
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
    """Run a daemon that lies, with the command line's arguments."""
    index = int(sys.argv[1])
    command = click.Command("liar", params=run.params, callback=None)

    def lying(config: Path | None, **flags: object) -> None:
        from node.cli import options

        serve(options.settings(flags, config), lambda honest: Liar(honest, lie_of(index)))

    command.callback = lying
    command.main(sys.argv[2:], prog_name="liar")


if __name__ == "__main__":
    main()
