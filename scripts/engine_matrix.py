"""Compute songs with the engine on every processor that is at hand, and compare the hashes."""

import functools
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor.engine import library
from executor.engine.matrices import Kind
from executor.engine.music import MusicModel
from executor.models.folders import EMBEDDED, SHIPPED
from scripts import arguments, engine_build, one_line
from tests.support.engine_image import song_image

# Tokens of a song in each part. A replay computes them again. Below 6 the codebooks have no delays.
STEPS = {"native": 48, "aarch64": 12, "cpus": 6}
# Without guidance a step computes one side instead of two.
GUIDED = {"native": 2.0, "aarch64": 2.0, "cpus": 1.0}
# The optimisation of CMakeLists.txt; static, because the emulated processor has no libc of its own.
FLAGS = ("-O3",)
PROMPT, SEED = "a slow sad piano in A minor", 7
CPUS = ("Haswell", "Skylake-Client", "EPYC")
RESULTS = ("prompt", "tokens", "logits", "replayed logits", "waveform")
THREADS = ("1", "2")


@dataclass(frozen=True)
class Target:
    """A way to run the program: the part that it belongs to, its name and its command."""

    part: str
    name: str
    command: tuple[str, ...]


def main() -> int:
    parser = arguments.Parser("scripts/engine_matrix", own_help=False)
    parser.add_argument("--only", action="append", choices=[*STEPS])
    parser.add_argument("--steps", type=arguments.whole(6, 500))
    parser.add_argument("--cc", action="append")
    parser.add_argument("--cross", default="aarch64-linux-gnu-gcc")
    parser.add_argument("--qemu", type=arguments.folder)
    options = parser.parse_args()
    parts = options.only or [*STEPS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets = list(_targets(folder, options))
        alike = True
        for part in parts:
            of_part = [target for target in targets if target.part == part]
            if of_part:
                # The first way of all is what the others are compared with, whatever their part.
                ways = list(dict.fromkeys([targets[0], *of_part]))
                for kind in Kind:
                    members = {
                        "max_new_tokens": options.steps or STEPS[part],
                        "guidance_scale": GUIDED[part],
                    }
                    image = write_image(folder, kind, members)
                    alike &= compare(kind, image, ways)
    return 0 if alike else 1


def _targets(folder: Path, options: Any) -> Iterator[Target]:
    """Yield all ways to run the program, those of this machine first."""
    parts = options.only or [*STEPS]
    compilers = options.cc or [name for name in ("gcc", "clang") if shutil.which(name)]
    fastest = ""
    for compiler in compilers:
        sets = library.supported_sets()
        emulated = [name for name in sets if name != "x86-64-v4"]  # qemu has no AVX-512
        # Other parts are compared with one native run.
        for instruction_set in sets if "native" in parts else emulated[:1]:
            name = f"{Path(compiler).name}, {instruction_set}"
            flags = engine_build.INSTRUCTION_SETS[instruction_set]
            program = build(folder, compiler, name, *flags)
            yield Target("native", name, (program,))
            if instruction_set in emulated:
                fastest = fastest or program
        if "native" not in parts:
            break
    emulator = _tool("qemu-x86_64", options.qemu)
    if "cpus" in parts and platform.machine() == "x86_64":
        if emulator is None:
            print("other CPUs are left out: apt install qemu-user", file=sys.stderr)
        else:
            for cpu in CPUS:
                command = (emulator, "-cpu", cpu, fastest)
                yield Target("cpus", f"{Path(compilers[0]).name}, emulated {cpu}", command)
    if "aarch64" in parts and platform.machine() != "aarch64":
        emulator = _tool("qemu-aarch64", options.qemu)
        if emulator is None or shutil.which(shlex.split(options.cross)[0]) is None:
            print(
                "aarch64 is left out: apt install qemu-user gcc-aarch64-linux-gnu", file=sys.stderr
            )
        else:
            program = build(folder, options.cross, "emulated aarch64")
            yield Target("aarch64", "gcc, emulated aarch64", (emulator, program))


def _tool(name: str, folder: Path | None) -> str | None:
    return shutil.which(name, path=None if folder is None else str(folder))


def build(folder: Path, compiler: str, name: str, *flags: str) -> str:
    """Compile the program that runs an image; return its path."""
    objects = engine_build.compile_objects(folder / name, compiler, name, [*FLAGS, *flags])
    return str(engine_build.link(folder / name / "engine_run", compiler, objects, ["-static"]))


def write_image(folder: Path, kind: Kind, members: Mapping[str, Any]) -> Path:
    """Write a model in one precision, and a song."""
    image = folder / "image"
    model = MusicModel(SHIPPED / EMBEDDED, kind)
    image.write_bytes(song_image(model, model.request(PROMPT, [SEED], members)))
    return image


def compare(kind: Kind, image: Path, targets: list[Target]) -> bool:
    """Run an image in all ways, print a line for each, and return whether all hashes are equal."""
    runs = [(target, threads) for target in targets for threads in THREADS]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        results = list(executor.map(functools.partial(_run, image), runs))
    expected = results[0][0]
    hashes = dict(line.rsplit(" ", 1) for line in expected.splitlines() if " " in line)
    complete = [*hashes] == [*RESULTS] and hashes["logits"] == hashes["replayed logits"]
    for (target, threads), (printed, seconds) in zip(runs, results, strict=True):
        verdict = "equal" if complete and printed == expected else "DIFFERS"
        plural = "s" if threads != "1" else ""
        way = f"{target.name}, {threads} thread{plural}"
        print(f"{kind.name.lower():9} {way:42} {verdict:7} {seconds:6.1f} s", flush=True)
    print(f"{kind.name.lower():9} " + ", ".join(f"{key} {hashes[key]}" for key in hashes))
    return complete and all(printed == expected for printed, _ in results)


def _run(image: Path, run: tuple[Target, str]) -> tuple[str, float]:
    """Return what the program prints, and the seconds that it took."""
    target, threads = run
    started = time.monotonic()
    command = [*target.command, str(image), threads]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout, time.monotonic() - started


if __name__ == "__main__":
    one_line.run(main)
