"""Compile the engine's C code outside of the build, for scripts that need it in another form."""

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "executor/engine/csrc"
# Computes a song from an image (tests/support/engine_image.py), without Python.
PROGRAM = ROOT / "tests/support/engine_run.c"
# Those that decide bits, as CMakeLists.txt has them. The program uses GNU's names of functions.
FLAGS = ("-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-pthread")
# The flags of each instruction set, as CMakeLists.txt has them.
INSTRUCTION_SETS = {
    "x86-64-v4": ("-march=x86-64-v4", "-mavx512vnni"),
    "x86-64-v3": ("-march=x86-64-v3",),
    "x86-64": ("-march=x86-64",),
    "aarch64": ("-march=armv8-a",),
}


def compile_objects(
    folder: Path, compiler: str, name: str, flags: Sequence[str], program: bool = True
) -> list[Path]:
    """Compile all C files into a new folder, as many at a time as there are processors."""
    folder.mkdir()
    sources = [*sorted(CSRC.glob("*.c")), *([PROGRAM] if program else [])]
    command = [*shlex.split(compiler), *FLAGS, *flags, f'-DHELIUM_INSTRUCTION_SET="{name}"']
    compile_one = functools.partial(_compile, folder, command)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        return list(executor.map(compile_one, sources))


def _compile(folder: Path, command: Sequence[str], source: Path) -> Path:
    output = folder / f"{source.stem}.o"
    run([*command, "-I", str(CSRC), "-c", str(source), "-o", str(output)])
    return output


def link(output: Path, compiler: str, objects: Sequence[Path], flags: Sequence[str]) -> Path:
    """Link objects to a program, or to a library if the flags say so."""
    run([*shlex.split(compiler), "-pthread", *flags, *map(str, objects), "-o", str(output)])
    return output


def run(command: Sequence[str]) -> None:
    """Run a compiler; end the script with what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} does not compile the engine: {done.stderr.strip()[:400]}")
