"""Fuzzing by hand: `scripts/fuzz --minutes 30 [--target NAME]`, or one input again by its seed."""

import argparse
import logging
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import structlog

from tests.fuzz.target import Target, fire
from tests.fuzz.targets import TARGETS

MOST = 20  # findings of one target before it is left
SHOWN = 12  # verdicts: those told by a peer, spoilt, are countless


def main(arguments: Sequence[str]) -> int:
    """Fire at the chosen targets in turn; return 1 if anything was found."""
    chosen = _options(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    targets = [t for t in TARGETS if chosen.target in (None, t.name)]
    if chosen.seed is not None:
        return _again(targets[0], chosen.seed)
    found = 0
    for target in targets:
        found += _run(target, 60 * chosen.minutes / len(targets), chosen.start, chosen.keep)
    return 1 if found else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="in all; shared by the targets")
    parser.add_argument("--target", choices=[t.name for t in TARGETS], help="only this one")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="run one input of --target again, with traceback")
    parser.add_argument("--keep", type=Path, help="a folder for inputs that were findings")
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None and chosen.target is None:
        parser.error("--seed needs --target")
    return chosen


def _run(target: Target, seconds: float, start: int, keep: Path | None) -> int:
    verdicts: Counter[str] = Counter()
    found, seed, begun = 0, start, time.monotonic()
    while time.monotonic() - begun < seconds and found < MOST:
        content = target.make(Random(seed))
        try:
            verdicts[fire(target, content)] += 1
        except Exception as error:
            found += 1
            print(f"{target.name}: seed {seed}: {type(error).__name__}: {error}"[:300], flush=True)
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{target.name}-{seed}").write_bytes(content)
        seed += 1
    took = time.monotonic() - begun
    share = ", ".join(f"{reason} {count}" for reason, count in verdicts.most_common(SHOWN))
    print(f"{target.name}: {seed - start} inputs in {took:.0f} s, {found} findings: {share}")
    sys.stdout.flush()
    return found


def _again(target: Target, seed: int) -> int:
    content = target.make(Random(seed))
    print(repr(content[:2000]))
    try:
        print(fire(target, content))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
