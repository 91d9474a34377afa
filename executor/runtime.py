"""What this machine computes with: the content of a compute class (specification, section 8).

A flat object of strings, integers and booleans, so that a network document can hold it and two can
be compared line by line. Everything in it is read in the worker, after the profile is set.
"""

import platform
import sys
from collections.abc import Mapping
from importlib import metadata

from executor import profile

LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "numpy",
    "safetensors",
    "sentencepiece",
    "tokenizers",
    "transformers",
)


def fingerprint(probe: str) -> dict[str, object]:
    """The runtime of this process.

    `probe` is the SHA-256 of what the self-test generated (`selftest`). With the probe in it, two
    machines that list the same versions and still compute different bits are of different classes
    from the start, instead of dissenting later.
    """
    import torch

    return {
        "device": "cpu",
        "architecture": platform.machine(),
        "byteorder": sys.byteorder,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__,
        **{name: installed(name) for name in LIBRARIES},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "onednn": bool(torch.backends.mkldnn.enabled),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        **{f"attention.{part or 'other'}": kind for part, kind in profile.ATTENTION.items()},
        "quantization.4": profile.FOUR_BIT,
        **{f"environment.{name}": value for name, value in profile.NUMERIC.items()},
        "probe": probe,
    }


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
