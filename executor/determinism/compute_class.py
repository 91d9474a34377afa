"""The runtime of a worker: the content of a compute class (specification, section 8).

A flat object of strings, integers and booleans, so that a network document can hold it and two can
be compared line by line. Every value is measured in the worker, or checked there against the
profile. With transformers the C library counts for its mathematical functions, and torch's build
for the libraries compiled into it, such as MKL. With the engine neither does.
"""

import os
import platform
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from executor.determinism import profile
from protocol.wire.encoding import tagged_hash
from schemas.errors import printable

DRIVER = Path("/proc/driver/nvidia/version")
LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "essentia",
    "librosa",
    "llvmlite",
    "numba",
    "numpy",
    "pretty_midi",
    "resampy",
    "safetensors",
    "scipy",
    "sentencepiece",
    "soundfile",
    "soxr",
    "tokenizers",
    "transformers",
)

# The settings of the numeric profile that numpy reads.
NUMPY_ENVIRONMENT = (
    "NPY_DISABLE_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
)

Engine = Literal["transformers", "helium"]


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """What a worker of a class computes with (specification, section 8).

    `task` is the only kind of task that a class of engine `helium` runs, "" where none is named.
    """

    engine: Engine = "transformers"
    device: profile.Device = "cpu"
    task: str = ""

    @classmethod
    def of(cls, runtime: Mapping[str, object]) -> Self:
        """Return the kind of worker for a class of a network document."""
        if runtime.get("engine") == "helium":
            return cls("helium", task=str(runtime.get("task", "")))
        return cls(device="cuda" if runtime.get("device") == "cuda" else "cpu")

    @property
    def runs_together(self) -> bool:
        """Whether jobs of one model run together in less time, with the bytes of single runs."""
        return self.engine == "helium" and self.task == "text-to-music"

    def serves(self, tasks: Collection[str], *, replay: bool) -> bool:
        """Return whether a class of this kind is for a listed model: of these tasks, with replay.

        The engine's classes are for models whose tasks prove work, although a task of another one
        is valid there too.
        """
        return self.engine == "transformers" or (replay and self.task in ("", *tasks))


def kind_name(kind: WorkerKind) -> str:
    """Return how commands name a kind of workers; its own words for one that is not in `KINDS`."""
    on_processor = replace(kind, device="cpu")
    names = [name for name, known in KINDS.items() if known == on_processor]
    return names[0] if names else printable(f"{kind.engine} {kind.task}")


TRANSFORMERS = WorkerKind()
# The kinds of workers on a processor, by the names that commands and test networks give them.
KINDS: Mapping[str, WorkerKind] = MappingProxyType(
    {
        "music": WorkerKind("helium", task="text-to-music"),
        "piano": WorkerKind("helium", task="pop2piano"),
        "transformers": TRANSFORMERS,
    }
)


def describe_engine_runtime(
    arithmetic: int, task: str, libraries: Sequence[str], probe: str
) -> dict[str, object]:
    """Return the runtime of the engine's class for a kind of task.

    `arithmetic` is the version of the engine's arithmetic, `probe` what the self-test generated.
    `libraries` still compute an input. Beyond that nothing is in it: no processor and no C library,
    because they decide no bits.
    """
    return {
        "engine": "helium",
        "arithmetic": arithmetic,
        "task": task,
        **{name: installed(name) for name in libraries},
        "probe": probe,
    }


def describe_numpy() -> dict[str, object]:
    """Return what decides the bits of features that numpy computes."""
    return {
        "architecture": platform.machine(),
        "libc": os.confstr("CS_GNU_LIBC_VERSION") or "unknown",
        **{f"environment.{name}": profile.NUMERIC[name] for name in NUMPY_ENVIRONMENT},
    }


def describe_runtime(probe: str, device: profile.Device = "cpu") -> dict[str, object]:
    """Return the runtime of this process.

    `probe` is the SHA-256 of what the self-test generated (`self_test.check`). With it, two
    machines that have the same versions but compute different bits are of different classes from
    the start, instead of dissenting later.
    """
    import torch

    return {
        "engine": "transformers",
        "device": device,
        **(gpu() if device == "cuda" else {}),
        "architecture": platform.machine(),
        "byteorder": sys.byteorder,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "libc": os.confstr("CS_GNU_LIBC_VERSION") or "unknown",
        "torch": torch.__version__,
        "torch.build": tagged_hash("build", torch.__config__.show().encode()).hex()[:16],
        **{name: installed(name) for name in LIBRARIES},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "onednn": bool(torch.backends.mkldnn.enabled),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        **{f"attention.{part or 'other'}": kind for part, kind in profile.ATTENTION.items()},
        "quantization.4": profile.FOUR_BIT,
        "quantization.4.products": profile.FOUR_BIT_PRODUCTS,
        **{f"environment.{name}": value for name, value in profile.numeric(device).items()},
        "probe": probe,
    }


def gpu() -> dict[str, object]:
    """Return what decides the bits of a GPU. Not tested on one yet."""
    import torch

    major, minor = torch.cuda.get_device_capability(0)
    return {
        "gpu": torch.cuda.get_device_name(0),
        "gpu.capability": f"{major}.{minor}",
        "gpu.driver": driver(DRIVER.read_text() if DRIVER.exists() else ""),
        "cuda": str(torch.version.cuda),
        "cudnn": int(torch.backends.cudnn.version() or 0),
    }


def driver(text: str) -> str:
    """Return the version of NVIDIA's driver from the text of `DRIVER`, or "unknown"."""
    match = re.search(r"Kernel Module.*?\s(\d+(\.\d+)+)", text)
    return match.group(1) if match else "unknown"


def installed(distribution: str) -> str:
    """Return the version of an installed distribution, or "none"."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"


def mismatch(actual: Mapping[str, object], expected: Mapping[str, object]) -> list[str]:
    """Return one line per differing field, in order of the names; [] means the same class."""
    return [
        f"{name}: ours {field_text(actual, name)}, theirs {field_text(expected, name)}"
        for name in sorted(actual.keys() | expected.keys())
        if name not in actual
        or name not in expected
        or not equal_in_json(actual[name], expected[name])
    ]


def equal_in_json(first: object, second: object) -> bool:
    """Return whether two values are equal in JSON, where 1 and true are not."""
    return isinstance(first, bool) == isinstance(second, bool) and first == second


def field_text(runtime: Mapping[str, object], name: str) -> str:
    """Return a field's value for people; "nothing" if it is missing."""
    return repr(runtime[name]) if name in runtime else "nothing"
