import os
import re
from importlib import metadata

import pytest

import schemas
from executor.determinism import compute_class
from executor.worker.supervisor import WorkerStatus


def test_equal_runtimes_are_one_class(ready: WorkerStatus) -> None:
    assert compute_class.mismatch(ready.runtime, dict(reversed(ready.runtime.items()))) == []


@pytest.mark.parametrize(
    ("actual", "expected", "line"),
    [
        ({"torch": "2.13.0"}, {"torch": "2.13.1"}, "torch: ours '2.13.0', theirs '2.13.1'"),
        ({"torch": "2.13.0"}, {}, "torch: ours '2.13.0', theirs nothing"),
        ({}, {"threads": 2}, "threads: ours nothing, theirs 2"),
        ({"threads": 1}, {"threads": True}, "threads: ours 1, theirs True"),
        ({"threads": 1}, {"threads": "1"}, "threads: ours 1, theirs '1'"),
    ],
)
def test_a_difference_is_one_readable_line(
    actual: dict[str, object], expected: dict[str, object], line: str
) -> None:
    same: dict[str, object] = {"device": "cpu"}
    assert compute_class.mismatch(actual | same, expected | same) == [line]


def test_lines_come_in_order_of_names() -> None:
    lines = compute_class.mismatch({"b": 1, "a": 1}, {"c": 1})
    assert [line.partition(":")[0] for line in lines] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "name",
    [
        "device",
        "libc",
        "torch",
        "torch.build",
        "transformers",
        "numpy",
        "essentia",
        "librosa",
        "pretty_midi",
        "scipy",
        "capability",
        "environment.MKL_CBWR",
        "probe",
    ],
)
def test_runtime_lists_what_decides_bits(ready: WorkerStatus, name: str) -> None:
    assert ready.runtime[name] not in ("", "none")


def test_a_workers_runtime_fits_into_a_network_document(ready: WorkerStatus) -> None:
    document = {
        "name": "test",
        "version": 2,
        "created": "2025-01-31T12:00:00Z",
        "parameters": {
            "committee_size": 3,
            "committee_max": 7,
            "commit_grace_seconds": 2,
            "attempt_seconds": 120,
            "max_deadline_seconds": 3600,
            "clock_skew_seconds": 60,
            "max_input_bytes": 33_554_432,
            "max_output_bytes": 134_217_728,
            "follow": 12,
        },
        "classes": {"cpu": ready.runtime},
        "models": [],
        "roster": [],
    }
    schemas.check("network", document)


def test_the_driver_is_read_from_what_it_says() -> None:
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024"
    assert compute_class.driver(f"{text}\nGCC version: 12.2.0") == "550.54.15"
    opened = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build"
    assert compute_class.driver(opened) == "570.86.10"
    assert compute_class.driver("") == "unknown"


def test_runtime_is_read_from_the_machine(ready: WorkerStatus) -> None:
    """The versions are those that are installed; the build is that of the torch that runs."""
    installed = {name: metadata.version(name) for name in ("numpy", "transformers", "scipy")}
    assert {name: ready.runtime[name] for name in installed} == installed
    assert ready.runtime["libc"] == os.confstr("CS_GNU_LIBC_VERSION")
    assert re.fullmatch("[0-9a-f]{16}", str(ready.runtime["torch.build"]))


def test_missing_distribution_has_version_none() -> None:
    assert compute_class.installed("no-such-distribution-exists") == "none"
