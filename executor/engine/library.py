"""The engine's C library: choose the one for this processor and load it.

There is a shared object for each instruction set; all compute the same bits. They lie beside this
module, in a checkout (`scripts/setup` builds them there) as in a wheel. `HELIUM_ENGINE_ISA` forces
an instruction set.
"""

import ctypes
import functools
import hashlib
import os
import platform
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from executor.errors import Abstained, EngineUnavailable, TaskFailed
from protocol.wire.messages import Abstention

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent
VARIABLE = "HELIUM_ENGINE_ISA"
# By machine; the last one runs on all of its processors.
INSTRUCTION_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"x86_64": ("x86-64-v4", "x86-64-v3", "x86-64"), "aarch64": ("aarch64",)}
)
# HE_ARITHMETIC of csrc/engine.h. A library of another one was not rebuilt.
ARITHMETIC_VERSION = 1

# What one query attends to, and the codebooks of a decoder (`csrc/engine.h`).
MAX_POSITIONS = 16_384
MAX_CODEBOOKS = 16


class Status(IntEnum):
    """How a call ended (`csrc/engine.h`)."""

    RUNNING = 1
    OK = 0
    NO_MEMORY = -1
    STOPPED = -2
    NOT_FINITE = -3
    DIFFERENT = -4


def check(status: Status) -> None:
    """Raise what a call's end means: `TaskFailed`, `Abstained` or `MemoryError`."""
    match status:
        case Status.NO_MEMORY:
            raise MemoryError("the engine has too little memory")
        case Status.STOPPED:
            raise Abstained(Abstention.TIMEOUT, "the job was stopped")
        case Status.NOT_FINITE:
            raise TaskFailed("non-finite-output", "a logit is not finite")


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library for this processor, once in a process. Raises `EngineUnavailable`."""
    return open_library(instruction_set())


@functools.cache
def instruction_set() -> str:
    """Return the instruction set that the engine uses: the forced one, or the fastest.

    Raises `EngineUnavailable`.
    """
    supported = supported_sets()
    forced = os.environ.get(VARIABLE)
    if not forced:
        return supported[0]
    if forced in supported:
        return forced
    raise EngineUnavailable(
        f"{VARIABLE} is {forced!r}; this processor has {' and '.join(supported)}"
    )


def supported_sets() -> tuple[str, ...]:
    """Return the instruction sets that this processor can run, the fastest first.

    The library for every processor is asked, because the numeric profile hides instructions from
    numpy. Raises `EngineUnavailable`.
    """
    machine = platform.machine()
    if machine not in INSTRUCTION_SETS:
        known = " and ".join(INSTRUCTION_SETS)
        raise EngineUnavailable(f"the engine is not written for {machine}, only for {known}")
    sets = INSTRUCTION_SETS[machine]
    if machine != "x86_64":
        return sets
    level = open_library(sets[-1]).he_x86_64_level()
    return sets[{4: 0, 3: 1, 1: 2}[level] :]


def library_path(name: str) -> Path:
    """Return where the library of an instruction set lies."""
    return FOLDER / f"libhelium_engine_{name.replace('-', '_')}.so"


def open_library(name: str) -> ctypes.CDLL:
    """Load the library of an instruction set. Raises `EngineUnavailable`."""
    path = library_path(name)
    if not path.is_file():
        raise EngineUnavailable(f"{path} is missing; scripts/setup, or a new install, builds it")
    try:
        library = ctypes.CDLL(str(path))
        library.he_instruction_set.restype = ctypes.c_char_p
        library.he_sources.restype = ctypes.c_char_p
        content = library.he_instruction_set().decode(), library.he_arithmetic_version()
        sources = library.he_sources().decode()
    except (OSError, AttributeError) as error:
        raise EngineUnavailable(f"{path} does not load: {error}") from error
    if content != (name, ARITHMETIC_VERSION):
        raise EngineUnavailable(
            f"{path} is for {content[0]} with arithmetic {content[1]}, not for {name} with"
            f" {ARITHMETIC_VERSION}; scripts/setup, or a new install, builds it anew"
        )
    if sources not in ("", sources_hash() or sources):
        raise EngineUnavailable(f"{path} is of other C files; scripts/setup builds it anew")
    return library


@functools.cache
def sources_hash() -> str:
    """Return the hash of the C files as `CMakeLists.txt` has it; "" without them, as in a wheel."""
    files = sorted(path for path in (FOLDER / "csrc").glob("*") if path.suffix in (".c", ".h"))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256("".join(hashes).encode()).hexdigest() if files else ""


def address(array: "NDArray[Any]") -> int:
    """Return where an array's numbers lie. They lie one after another, or it is an error.

    Whoever passes an address on keeps the array alive as long as it is used.
    """
    if not array.flags.c_contiguous:
        raise ValueError("the array is not contiguous")
    return array.ctypes.data


def kept_steps(steps: int) -> int:
    """Return of how many steps logits are kept: of each 64th, and of the last one."""
    return int(load().he_kept_steps(ctypes.c_int32(steps)))
