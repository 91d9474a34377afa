"""Samples of a process's stacks: which part of the program each belongs to."""

import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[3]

SIGNATURES, OWN, TRANSPORT, REST = PARTS = ("signatures", "own code", "transport", "rest")

# The innermost frame that fits one of these decides. So a library's time counts for its caller:
# SQLite's and the parsers' for our own code, that of a stream's cipher for the transport. Frames of
# asyncio, of the command line and of the executor that stands in for a model fit none.
_RULES = (
    (SIGNATURES, r"/site-packages/nacl/"),
    (SIGNATURES, r"^protocol/wire/signing\.py:(check_signature|signature_of|public_key_of)$"),
    (TRANSPORT, r"/site-packages/(libp2p|trio|noise|multiaddr|outcome)/"),
    (TRANSPORT, r"^node/transport/"),
    (OWN, r"^(node/(?!cli/)|protocol/|schemas/|executor/)"),
)
# The innermost frames of threads that wait: for sockets, for another thread, for work.
_WAITING = re.compile(
    r"(/selectors\.py:select|/trio/_core/_io_epoll\.py:get_events|/threading\.py:wait"
    r"|/concurrent/futures/thread\.py:_worker|/trio/_core/_thread_cache\.py:_work)$"
)
# The clock of one thread's processor time, by the kernel's number of the thread: what glibc's
# pthread_getcpuclockid(3) returns, but an error and no crash for a thread that has ended.
_THREAD_CLOCK = 0b110


class Sampler:
    """Says what the threads of this process spend their processor time on.

    A sample finds where a thread is, and the thread's clock says how long it ran. What it used
    since its last sample goes to the part in which it is now. A thread that waits, for the disk
    too, gets no sample: what it has used counts for its next one.
    """

    def __init__(self) -> None:
        self._counted: dict[int, float] = {}  # seconds by thread

    def sample(self) -> dict[str, float]:
        """Return the seconds that a sample of all threads but the caller's gives to the parts."""
        stacks, seconds = sys._current_frames(), Counter[str]()
        for thread in threading.enumerate():
            stack, number = stacks.get(thread.ident or 0), thread.native_id
            if thread is threading.current_thread() or stack is None or number is None:
                continue
            frames = frames_of(stack)
            if is_waiting(frames) or _waits_for_disk(number):
                continue
            used = _processor_seconds(number)
            seconds[part_of(frames)] += used - self._counted.get(number, 0.0)
            self._counted[number] = used
        return seconds


def is_waiting(frames: Sequence[str]) -> bool:
    """Return whether a thread with these frames, as `frames_of` returns them, has nothing to do."""
    return bool(_WAITING.search(frames[0]))


def _waits_for_disk(thread: int) -> bool:
    try:
        # After the name, which may hold anything: the state, D in uninterruptible sleep (proc(5)).
        return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2][1] == "D"
    except OSError:  # it has ended
        return True


def _processor_seconds(thread: int) -> float:
    try:
        return time.clock_gettime(~thread << 3 | _THREAD_CLOCK)
    except OSError:  # it has ended
        return 0.0


def shares(counts: Mapping[str, float]) -> dict[str, float]:
    """Return each part's share of all seconds, in the order of `PARTS`; empty without samples."""
    total = sum(counts.values())
    return {part: counts.get(part, 0) / total for part in PARTS} if total else {}


def part_of(frames: Iterable[str]) -> str:
    """Return the part of a stack, as `frames_of` returns it."""
    for frame in frames:
        for part, pattern in _RULES:
            if re.search(pattern, frame):
                return part
    return REST


def frames_of(innermost: FrameType) -> list[str]:
    """Return `path:function` of a stack's frames, the innermost first.

    Paths of this project start at its root.
    """
    return [
        f"{frame.f_code.co_filename.removeprefix(f'{ROOT}/')}:{frame.f_code.co_name}"
        for frame in _outwards(innermost)
    ]


def _outwards(innermost: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = innermost
    while frame is not None:
        yield frame
        frame = frame.f_back
