"""A light node that counts its bytes, and samples its stacks with `--sample`.

    python -m scripts.bench_tool.light.node FOLDER [--sample] [flag of tests.integration.light...]

It keeps two numbers in FOLDER/traffic (`TRAFFIC`), and appends samples to FOLDER/samples.
"""

import faulthandler
import mmap
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import trio

TRAFFIC_FILE, SAMPLES_FILE = "traffic", "samples"
# Bytes received and bytes sent, as TCP carries them, since the start.
TRAFFIC = struct.Struct("=QQ")
# Processor time of the whole process between two samples. A sample costs about 0.2 ms.
SAMPLE_SECONDS = 0.01
SAMPLE = "--sample"


def count_bytes(file: Path) -> None:
    """Count what all TCP connections of this process carry, in a file of `TRAFFIC`."""
    file.write_bytes(bytes(TRAFFIC.size))
    with file.open("r+b") as opened:
        counts = memoryview(mmap.mmap(opened.fileno(), TRAFFIC.size)).cast("Q")
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


def sample_stacks(file: Path) -> None:
    """Append the stack of the running thread for each `SAMPLE_SECONDS` of processor time.

    `faulthandler` writes it inside the signal handler. A handler in Python would run later, when
    the interpreter takes up signals, and in the main thread alone.
    """
    faulthandler.register(signal.SIGPROF, file=file.open("ab"), all_threads=False)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)


def main() -> None:
    """Run the node until a signal stops it."""
    folder = Path(sys.argv.pop(1))
    count_bytes(folder / TRAFFIC_FILE)
    if sys.argv[1:2] == [SAMPLE]:
        del sys.argv[1]
        sample_stacks(folder / SAMPLES_FILE)
    from tests.integration import light  # here: its imports are not what samples are for

    light.main()


if __name__ == "__main__":
    main()
