"""A light node that counts its bytes, and samples its stacks with `--sample`.

    python -m scripts.bench_tool.light.node FOLDER [--sample] [flag of tests.integration.light...]

It keeps two numbers in FOLDER/traffic (`TRAFFIC`), and one for each part of the program in
FOLDER/samples (`SAMPLES`).
"""

import mmap
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import trio

from scripts.bench_tool.light.samples import PARTS, Sampler

TRAFFIC_FILE, SAMPLES_FILE = "traffic", "samples"
# Bytes received and bytes sent, as TCP carries them, since the start.
TRAFFIC = struct.Struct("=QQ")
# Seconds of processor time that samples gave to each of `PARTS`, since the start.
SAMPLES = struct.Struct(f"={len(PARTS)}d")
# Processor time of the whole process between two samples.
SAMPLE_SECONDS = 0.01
# The longest that the thread which is to be sampled still runs after the signal, unless a single
# call of C code takes longer. Python's 5 ms would give most samples to the next system call.
SWITCH_SECONDS = 0.00005
SAMPLE = "--sample"


def shared_numbers(file: Path, layout: struct.Struct) -> memoryview:
    """Return numbers that another process can read from a file while they change."""
    file.write_bytes(bytes(layout.size))
    with file.open("r+b") as opened:
        return memoryview(mmap.mmap(opened.fileno(), layout.size)).cast(layout.format[-1])


def count_bytes(counts: memoryview) -> None:
    """Count what all TCP connections of this process carry, as `TRAFFIC`."""
    receive, send = trio.SocketStream.receive_some, trio.SocketStream.send_all

    async def counted_receive(stream: trio.SocketStream, *limit: Any) -> Any:
        data = await receive(stream, *limit)
        counts[0] += len(data)
        return data

    async def counted_send(stream: trio.SocketStream, data: Any) -> None:
        await send(stream, data)
        counts[1] += len(data)

    trio.SocketStream.receive_some = counted_receive
    trio.SocketStream.send_all = counted_send


def sample_stacks(counts: memoryview) -> None:
    """Take a sample at each `SAMPLE_SECONDS` of processor time, into `SAMPLES`.

    A thread waits for the timer's signal, which no other thread takes. A handler in Python would
    run in the main thread alone. `faulthandler` writes stacks inside the handler, and crashes now
    and then where a frame is only half made.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})  # threads inherit it
    sys.setswitchinterval(SWITCH_SECONDS)
    sampler = Sampler()

    def sample() -> None:
        while True:
            signal.sigwait({signal.SIGPROF})
            for part, seconds in sampler.sample().items():
                counts[PARTS.index(part)] += seconds

    threading.Thread(target=sample, daemon=True).start()
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)


def main() -> None:
    """Run the node until a signal stops it."""
    folder = Path(sys.argv.pop(1))
    count_bytes(shared_numbers(folder / TRAFFIC_FILE, TRAFFIC))
    samples = shared_numbers(folder / SAMPLES_FILE, SAMPLES)
    if sys.argv[1:2] == [SAMPLE]:
        del sys.argv[1]
        sample_stacks(samples)
    from tests.integration import light  # here: its imports take seconds

    light.main()


if __name__ == "__main__":
    main()
