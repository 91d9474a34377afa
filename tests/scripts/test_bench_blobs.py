"""`scripts/bench blobs`, as it is run, on a small blob."""

import mmap

from scripts.bench_tool import blobs
from scripts.bench_tool.light.transfer import Memory
from tests.scripts.benchmark import rows_of

MEGABYTES = 8.0


def test_blobs_are_measured_and_resumed() -> None:
    row, cut = rows_of("blobs", "--megabytes", str(MEGABYTES), "--readers", "2")
    assert (row["readers"], row["megabytes"]) == (2, MEGABYTES)
    assert all(row[kind]["mb_per_second"] > 0 for kind in ("libp2p", "plain", "hashed"))
    for kind in ("libp2p", "hashed"):  # a plain reader's may round to nothing
        assert row[kind]["sender_ms_per_mb"] > 0
        assert row[kind]["reader_ms_per_mb"] > 0
    assert blobs.line(row).count("\n") == 3
    # Both halves once; and what was on its way, at most some windows of 256 KiB.
    assert MEGABYTES / 2 <= cut["cut_after_mb"] < MEGABYTES
    assert 0 < cut["beyond_size_mb"] < MEGABYTES / 4
    assert blobs.line(cut).startswith("cut after ")


def test_memory_counts_from_its_start() -> None:
    """What a process held before does not count; what it held in between does."""
    before = resident(8 << 20)
    memory = Memory()
    resident(32 << 20).close()
    before.close()
    assert 24 < memory.growth() < 48


def resident(size: int) -> mmap.mmap:
    """New pages, each written: malloc may give pages back that this process has had before."""
    pages = mmap.mmap(-1, size)
    for start in range(0, size, mmap.PAGESIZE):
        pages[start] = 1
    return pages
