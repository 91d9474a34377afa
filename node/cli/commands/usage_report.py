"""What the node of a data folder has cost, for `helium status` without a task."""

import time
from pathlib import Path

from node.cli import options
from node.cli.exit_codes import usage
from node.storage.usage import USAGE_SECONDS, read_usage


def describe_usage(data_dir: Path | None) -> tuple[dict[str, object], list[str]]:
    """Return what a node has cost, as the JSON document and as lines. Raises Failure (usage)."""
    folder = options.settings({"data_dir": data_dir}).data_dir
    cost = read_usage(folder)
    if cost is None:
        raise usage(
            f"{folder}: no node has run on this data folder. Name a task, or a node's data folder"
            " (--data-dir or HELIUM_DATA_DIR)"
        )
    seconds, age = cost.at - cost.started, max(0.0, time.time() - cost.at)
    is_running = age < 3 * USAGE_SECONDS
    counted = cost.bytes_in is not None and cost.bytes_out is not None
    rate = ""
    if seconds >= USAGE_SECONDS:  # of a start it would say nothing
        rate = f", {1000 * cost.processor_seconds / seconds:.1f} ms a second"
    lines = [
        f"node       {'running' if is_running else 'stopped'}; {seconds:.0f} s after its start,"
        f" {age:.0f} s ago:",
        f"processor  {cost.processor_seconds:.1f} s{rate}; workers left out",
        *([f"bytes      {cost.bytes_in} in, {cost.bytes_out} out"] if counted else []),
        f"messages   {cost.messages_new} new, {cost.messages_repeated} repeated",
    ]
    return {**cost.document(), "running": is_running}, lines
