"""What this machine computes with: the content of a compute class (specification, section 8).

A flat object of strings, integers and booleans, so that a network document can hold it and two can
be compared line by line. Everything in it is read in the worker, after the profile is set, and
nothing is taken from a configuration. The C library is in it for its own mathematical functions,
torch's build for what is compiled into it, MKL among it.
"""

import os
import platform
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from executor.determinism import profile
from protocol.wire.encoding import tagged_hash

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


def describe_runtime(probe: str, device: profile.Device = "cpu") -> dict[str, object]:
    """The runtime of this process.

    `probe` is the SHA-256 of what the self-test generated (`selftest`). With the probe in it, two
    machines that list the same versions and still compute different bits are of different classes
    from the start, instead of dissenting later.
    """
    import torch

    return {
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
    """What decides the bits of a GPU. Not run on one yet."""
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
    """The version of NVIDIA's driver, from what it says in /proc; "unknown" if it does not."""
    found = re.search(r"Kernel Module.*?\s(\d+(\.\d+)+)", text)
    return found.group(1) if found else "unknown"


def installed(distribution: str) -> str:
    """The version of an installed distribution, or "none"."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"


def mismatch(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    """One readable line per differing field, in order of the names; empty: the same class."""
    return [
        f"{name}: ours {shown(ours, name)}, theirs {shown(theirs, name)}"
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or not same(ours[name], theirs[name])
    ]


def same(one: object, other: object) -> bool:
    """Equal in JSON: 1 and true, equal in Python, are not."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def shown(runtime: Mapping[str, object], name: str) -> str:
    """A field as a person may read it."""
    return repr(runtime[name]) if name in runtime else "nothing"
