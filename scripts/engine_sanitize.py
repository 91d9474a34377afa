"""Run the engine's C code with the compilers' checks over songs, tests and hostile models."""

import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from executor.engine.library import supported_sets
from executor.engine.matrices import Kind
from executor.engine.music import MusicModel
from executor.models.folders import EMBEDDED, SHIPPED
from scripts import arguments, engine_build, one_line
from tests.support.engine_image import song_image

PARTS = ("songs", "tests", "hostile", "packing", "races")
TESTS = engine_build.ROOT / "tests/executor/engine"
PROMPT, SEED, STEPS = "a slow sad piano in A minor", 7, 48
# Every report ends the process. Not vptr and the like: the code is C.
MEMORY_FLAGS = (
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
)
RACE_FLAGS = ("-fsanitize=thread",)
# -O1: with more, inlined loops with their checks take minutes to compile.
COMMON_FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fPIC")
# Frames of an allocation that are kept. More would not fit a leak's report on a page.
FRAMES = 8


@dataclass(frozen=True)
class Build:
    """What was compiled for one instruction set."""

    name: str
    program: Path


def main() -> int:
    parser = arguments.Parser("scripts/engine_sanitize", own_help=False)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--seconds", type=arguments.whole(1), default=60)
    parser.add_argument("--cc", default="gcc")
    options = parser.parse_args()
    parts = options.only or PARTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder) if {"songs", "races"} & {*parts} else []
        if {*parts} - {"races"}:
            builds = build_libraries(folder, options.cc)
            if "songs" in parts:
                run_songs(builds, images, ("1", "2"), folder)
            for part in ("tests", "hostile", "packing"):
                if part in parts:
                    run_tests(part, folder, options)
        if "races" in parts:
            builds = [build_for_races(folder, options.cc)]
            run_songs(builds, images, ("2", "5"), folder, ["setarch", "-R"])
    print("no report")
    return 0


def write_images(folder: Path) -> list[Path]:
    """Write an image of the shipped model and a song for each kind of weights."""
    images = []
    for kind in Kind:
        model = MusicModel(SHIPPED / EMBEDDED, kind)
        request = model.request(PROMPT, [SEED], {"max_new_tokens": STEPS})
        images.append(folder / f"{kind.name.lower()}.image")
        images[-1].write_bytes(song_image(model, request))
    return images


def build_libraries(folder: Path, compiler: str) -> list[Build]:
    """Build the library and the program for each instruction set of this machine."""
    return [_build(folder, compiler, name, MEMORY_FLAGS) for name in supported_sets()]


def build_for_races(folder: Path, compiler: str) -> Build:
    """Build the program for the fastest instruction set, with a check for data races."""
    races = folder / "races"
    races.mkdir()
    return _build(races, compiler, supported_sets()[0], RACE_FLAGS)


def _build(folder: Path, compiler: str, name: str, checks: Sequence[str]) -> Build:
    started = time.monotonic()
    flags = [*COMMON_FLAGS, *engine_build.INSTRUCTION_SETS[name], *checks]
    objects = engine_build.compile_objects(folder / name, compiler, name, flags)
    of_library = [path for path in objects if path.stem != engine_build.PROGRAM.stem]
    library = folder / f"libhelium_engine_{name.replace('-', '_')}.so"
    engine_build.link(
        library, compiler, of_library, [*checks, *shared(compiler, checks), "-shared"]
    )
    program = engine_build.link(folder / name / "engine_run", compiler, objects, checks)
    print(f"compiled for {name} with {checks[0]}: {time.monotonic() - started:.0f} s", flush=True)
    return Build(name, program)


def shared(compiler: str, checks: Sequence[str]) -> list[str]:
    """Return what makes clang use the checks' shared library, as gcc does; Python preloads it."""
    is_clang = "clang" in compiler and checks == MEMORY_FLAGS
    return ["-shared-libasan"] if is_clang else []


def run_songs(
    builds: Sequence[Build],
    images: Sequence[Path],
    threads: Sequence[str],
    folder: Path,
    before: Sequence[str] = (),
) -> None:
    """Run the program over all images. `before`: ThreadSanitizer wants addresses that stay."""
    for build in builds:
        for image in images:
            printed = set()
            for count in threads:
                command = [*before, str(build.program), str(image), count]
                printed.add(checked(command, environment(folder, leaks=True), folder))
            if len(printed) > 1:
                sys.exit(f"{build.name}, {image.stem}: threads change the bits")
            print(
                f"songs on {build.name}, {image.stem}: {' and '.join(threads)} threads", flush=True
            )


def run_tests(part: str, folder: Path, options: object) -> None:
    """Run the engine's tests in Python, on the libraries of `folder`."""
    compiler, seconds = str(options.cc), int(options.seconds)  # type: ignore[attr-defined]
    plugin = ["-p", "tests.support.engine_folder", "-p", "no:cacheprovider", "-n", "0"]
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "--no-header", *plugin]
    preload = {"LD_PRELOAD": runtime(compiler), "HELIUM_ENGINE_FOLDER": str(folder)}
    variables = environment(folder, leaks=False) | preload
    if part == "tests":
        # Those of the library's choice start processes that load the usual one.
        names = ["test_hostile.py", "test_packing.py", "test_library.py"]
        left_out = [f"--ignore={TESTS / name}" for name in names]
        checked([*command, *left_out, "-k", "not transformers", str(TESTS)], variables, folder)
        print("tests of the engine: passed", flush=True)
        return
    rounds, end = 0, time.monotonic() + seconds
    while not rounds or time.monotonic() < end:
        seed = f"--hypothesis-seed={random.randrange(2**30)}"
        print(f"{part}, round {rounds + 1}, {seed}", flush=True)
        profile = ["--hypothesis-profile=fuzz", seed]
        checked([*command, *profile, str(TESTS / f"test_{part}.py")], variables, folder)
        rounds += 1


def runtime(compiler: str) -> str:
    """Return the shared libraries that a process loads first: AddressSanitizer's, and C++'s.

    AddressSanitizer watches C++'s exceptions, and looks for their functions at the start only.
    """
    paths = [_found(compiler, "libstdc++.so.6")]
    names = ("libasan.so", "libclang_rt.asan-x86_64.so", "libclang_rt.asan-aarch64.so")
    for name in names:
        if path := _found(compiler, name):
            return " ".join([path, *filter(None, paths)])
    sys.exit(f"{compiler} has no AddressSanitizer; Debian: apt install libasan8 or libclang-rt-dev")


def _found(compiler: str, library: str) -> str | None:
    command = [*shlex.split(compiler), f"-print-file-name={library}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return path if Path(path).is_absolute() else None


def environment(folder: Path, *, leaks: bool) -> dict[str, str]:
    """Return the variables of a process with checks; each report goes to a file of `folder`.

    Leaks are looked for by the program only: CPython does not free all of its memory.
    """
    common = f"log_path={folder / 'report'}:print_stacktrace=1:halt_on_error=1"
    return {
        **os.environ,
        "ASAN_OPTIONS": f"{common}:detect_leaks={leaks:d}:malloc_context_size={FRAMES}"
        ":detect_stack_use_after_return=1:strict_string_checks=1",
        "UBSAN_OPTIONS": common,
        "TSAN_OPTIONS": common,
        "PYTHONMALLOC": "malloc",  # so that each of Python's blocks has its own bounds
    }


def checked(command: Sequence[str], variables: Mapping[str, str], folder: Path) -> str:
    """Run a command and return what it printed; end the script if it failed or reported."""
    done = subprocess.run(
        command,
        env=variables,
        cwd=engine_build.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    reports = [path.read_text(errors="replace") for path in sorted(folder.glob("report.*"))]
    if done.returncode or reports:
        print(done.stdout[-8_000:], *reports, sep="\n")
        sys.exit(f"{shlex.join(command)}\nended with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    one_line.run(main)
