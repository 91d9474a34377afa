"""Measure what a node costs in networks of any size, in virtual time.

One real node runs in a generated roster. Of each task only the members of its committee speak, with
real keys and signatures. Six members gossip all of it to the node, and all of them list all of it
in their feeds. In turn are measured

  idle      processor time of a second without tasks
  task      messages and bytes with the node, signature checks, rankings of the roster, growth of
            the database, processor time; the task's committee has three members
  away      a node that was stopped for an hour reads in the feeds of those that it follows what it
            missed; the tasks have expired by then
  redraw    the node follows others, as it does every hour, and is listed again what it has
  settled   a start on a database of --settled tasks that have ended, and dropping their envelopes

Processor time is that of the whole process: the other side of each request is part of it. It hardly
depends on load. Counts and bytes do not at all. By these figures a line tells what a day of 1 to
10,000 tasks costs: that is extrapolated, not measured. The node does not hold its votes at its
start: it would first ask a majority of the operators.

A network document has at most 16,384 members. A larger one is built without its checks.

    scripts/bench scale
    scripts/bench scale --members 4 1000 10000 --settled 100000 --plot FILE.svg
"""

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from node.config import log_setup
from node.daemon import DROPPED_TASKS
from node.sync.feeds.selection import DRAW_SECONDS
from schemas.errors import HeliumError
from scripts import arguments, one_line
from scripts.bench_tool.large import settled
from scripts.bench_tool.large.roster import Roster, generate
from scripts.bench_tool.large.world import Meter, World, counting, world
from scripts.bench_tool.light.network import machine
from scripts.bench_tool.output import progress, report
from tests.simulation import virtual_loop

IDLE_SECONDS = 300.0  # virtual, as all seconds are here
AWAY_SECONDS = 3600.0
CATCH_UP_SECONDS = 120.0
# Tasks a day for which costs are extrapolated.
RATES = (1, 100, 1_000, 10_000)
DAY = 86_400.0
# Days for which a node keeps envelopes by default.
RETENTION_DAYS = 90


class NotCertified(HeliumError):
    """A task got no certificate at the node, so that the figures would mean nothing."""


def measure(members: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one roster."""
    began = time.process_time()
    roster = generate(members)
    row: dict[str, Any] = {
        "members": members,
        **machine(),
        "document_bytes": len(roster.document),
        "is_allowed": roster.is_allowed,
        "generate_s": round(time.process_time() - began, 2),
    }
    figures = virtual_loop.run(lambda: _measure(roster, options))
    return {**row, **figures, "by_rate": [_day(figures, members, rate) for rate in RATES]}


async def _measure(roster: Roster, options: argparse.Namespace) -> dict[str, Any]:
    async with world(roster) as made:
        with counting(made.counts):
            await asyncio.sleep(IDLE_SECONDS)
            meter = Meter(made)
            await asyncio.sleep(IDLE_SECONDS)
            idle = meter.read()["processor"] / IDLE_SECONDS
            tasks = await _tasks(made, options.tasks, idle)
            redraw = await _redraw(made, options.tasks, idle)
            restart = _settled(made, options.settled) if options.settled else None
            away = await _away(made, options.away)
    figures = {"idle_ms_per_second": round(1000 * idle, 3), "tasks": options.tasks, "task": tasks}
    return {**figures, "redraw": redraw, "away": away, "settled": restart}


async def _tasks(made: World, count: int, idle: float) -> dict[str, float]:
    """Return what a task costs."""
    progress(f"{len(made.network.roster)} members: {count} tasks")
    meter = Meter(made)
    for _ in range(count):
        task = await made.task()
        view = made.coordinator.view(task.id)
        if view is None or not view.certificates:
            raise NotCertified(f"the node has no certificate of task {task.id}")
    return _each(meter.read(), count, idle)


async def _redraw(made: World, tasks: int, idle: float) -> dict[str, float] | None:
    """Return what it costs to be listed a task again by one member; None if all are followed."""
    before, meter = made.followed, Meter(made)
    await made.draw_again()
    new = made.followed - before
    return _each(meter.read(), tasks * len(new), idle) if new else None


async def _away(made: World, count: int) -> dict[str, float]:
    """Return what it costs to catch up, for each task that was missed."""
    await made.node.crash()
    for _ in range(count):
        await made.task(gossips=False)
    await asyncio.sleep(AWAY_SECONDS)
    meter = Meter(made)
    await made.start_node()
    await asyncio.sleep(CATCH_UP_SECONDS)
    return _each(meter.read(), count, 0.0)


def _each(usage: Mapping[str, float], count: int, idle: float) -> dict[str, float]:
    """Return usage by task; processor time in milliseconds, without that of an idle node."""
    processor = usage["processor"] - idle * usage["seconds"]
    figures = {
        "messages": usage["received"] + usage["sent"],
        "bytes": usage["gossip_bytes"] + usage["stream_bytes"],
        "ids": usage["ids"],
        "envelopes_asked": usage["envelopes"],
        "signature_checks": usage["signature_checks"],
        "rankings": usage["rankings"],
        "journal_bytes": usage["journal_bytes"],
        "processor_ms": 1000 * max(0.0, processor),
    }
    return {name: round(value / count, 2) for name, value in figures.items()}


def _settled(made: World, tasks: int) -> dict[str, float]:
    """Return what a start costs with so many tasks, before and after their envelopes are gone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "node.sqlite"
        count = settled.fill(made.node.journal._db, path, tasks)
        progress(f"{len(made.network.roster)} members: {count} settled tasks")
        size = path.stat().st_size
        members = len(made.network.roster)
        whole = settled.restart(path, members)
        dropping = settled.drop_all(path, made.roster, DROPPED_TASKS)
        dropped = settled.restart(path, members)
    return {
        "tasks": count,
        "bytes_per_task": round(size / count),
        **{f"restart_{name}": value for name, value in whole.items()},
        "longest_step_ms": dropping["longest_step_ms"],
        "kept_bytes_per_task": round(dropping["kept_bytes"] / count),
        **{f"dropped_restart_{name}": value for name, value in dropped.items()},
    }


def _day(figures: Mapping[str, Any], members: int, rate: int) -> dict[str, float]:
    """Return what a day of so many tasks costs by the measured figures."""
    task, redraw, away = figures["task"], figures["redraw"], figures["away"]
    again = relisted(members, rate, new=12) if redraw else 0.0
    listed_bytes = again * redraw["bytes"] if redraw else 0.0
    listed_ms = again * redraw["processor_ms"] if redraw else 0.0
    return {
        "tasks_per_day": rate,
        "processor_share": round(
            (rate * task["processor_ms"] + listed_ms) / 1000 / DAY
            + figures["idle_ms_per_second"] / 1000,
            5,
        ),
        "megabytes_per_day": round((rate * task["bytes"] + listed_bytes) / 1e6, 2),
        "relisted_megabytes_per_day": round(listed_bytes / 1e6, 2),
        "journal_megabytes_per_day": round(rate * task["journal_bytes"] / 1e6, 2),
        "catch_up_s": round(rate * away["processor_ms"] / 1000, 2),
    }


def relisted(members: int, rate: float, new: int) -> float:
    """Return how many tasks a day are listed again, by members that are followed anew each hour.

    A member lists what it accepted since it was followed last, but nothing that it has dropped.
    """
    draws = DAY / DRAW_SECONDS
    hours = min((members - 1) / new, RETENTION_DAYS * 24)
    return draws * new * hours * rate / 24 if members - 1 > new else 0.0


def line(row: Mapping[str, Any]) -> str:
    """Return a row in words."""
    task, away = row["task"], row["away"]
    size = f"{row['document_bytes'] / 1e6:.2f} MB document"
    size += "" if row["is_allowed"] else ", more than is allowed"
    lines = [
        f"{row['members']} members ({size}), {row['tasks']} tasks: idle"
        f" {row['idle_ms_per_second']:.2f} ms of processor time per second; a task"
        f" {task['processor_ms']:.1f} ms, {task['messages']:.0f} messages,"
        f" {task['bytes'] / 1000:.1f} kB, {task['signature_checks']:.1f} signature checks,"
        f" {task['rankings']:.1f} rankings, {task['journal_bytes'] / 1000:.1f} kB of journal",
        f"    missed: {away['processor_ms']:.1f} ms, {away['bytes'] / 1000:.1f} kB,"
        f" {away['signature_checks']:.1f} checks a task",
    ]
    if (redraw := row["redraw"]) is not None:
        lines.append(
            f"    listed again by a member: {redraw['processor_ms']:.2f} ms,"
            f" {redraw['bytes'] / 1000:.2f} kB a task"
        )
    if (settled := row["settled"]) is not None:
        lines.append(
            f"    {settled['tasks']} settled tasks of {settled['bytes_per_task'] / 1000:.1f} kB:"
            f" start in {settled['restart_processor_s']:.2f} s of processor time and"
            f" {settled['restart_memory_mib']:.0f} MiB; without envelopes"
            f" {settled['kept_bytes_per_task'] / 1000:.1f} kB each,"
            f" {settled['dropped_restart_processor_s']:.2f} s and"
            f" {settled['dropped_restart_memory_mib']:.0f} MiB; longest step of dropping"
            f" {settled['longest_step_ms']:.0f} ms"
        )
    lines += [
        f"    extrapolated, {day['tasks_per_day']} tasks a day:"
        f" {day['processor_share']:.2%} of a processor, {day['megabytes_per_day']:.1f} MB a day"
        f" ({day['relisted_megabytes_per_day']:.1f} listed again),"
        f" {day['journal_megabytes_per_day']:.2f} MB of journal; {day['catch_up_s']:.1f} s to"
        " catch up after a day"
        for day in row["by_rate"]
    ]
    return "\n".join(lines)


# The measured costs that a plot shows, each with its unit.
_CURVES = (
    ("a task: processor time, ms", lambda row: row["task"]["processor_ms"], "#268"),
    ("a task: kB", lambda row: row["task"]["bytes"] / 1000, "#b62"),
    ("a task: kB of journal", lambda row: row["task"]["journal_bytes"] / 1000, "#283"),
    ("a task: signature checks", lambda row: row["task"]["signature_checks"], "#82a"),
    ("idle: processor time of a second, ms", lambda row: row["idle_ms_per_second"], "#b22"),
)


def plot(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a drawing of costs against members, both axes logarithmic."""
    left, right, top, bottom = 60, 460, 20, 320
    low, high = 0.01, 1000.0

    def place(members: float, cost: float) -> tuple[float, float]:
        last = math.log10(max(10, *(row["members"] for row in rows)))
        x = left + (right - left) * math.log10(members) / last
        share = math.log10(min(max(cost, low), high) / low) / math.log10(high / low)
        return x, bottom - (bottom - top) * share

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="360" font-family="sans-serif"'
        ' font-size="12">',
        '<rect width="760" height="360" fill="white"/>',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#888"/>',
        f'<text x="{left}" y="{bottom + 34}">members of the network</text>',
    ]
    for row in rows:
        x, _ = place(row["members"], low)
        parts.append(f'<text x="{x:.0f}" y="{bottom + 16}">{row["members"]}</text>')
    for power in range(-2, 4):
        _, y = place(1, 10.0**power)
        parts.append(f'<text x="8" y="{y + 4:.0f}">{10.0**power:g}</text>')
    for number, (name, value, color) in enumerate(_CURVES):
        points = [place(row["members"], value(row)) for row in rows]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
        label = f'<text x="{right + 30}" y="{top + 20 + 20 * number}" fill="{color}">{name}</text>'
        parts.append(label)
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    """Measure the rosters that the arguments name."""
    whole = arguments.whole
    parser = arguments.Parser("scripts/bench scale", __doc__)
    parser.add_argument(
        "--members",
        type=whole(4, 100_000),
        nargs="+",
        default=[4, 31, 100, 1000],
        help="sizes of rosters, one after the other (default 4 31 100 1000)",
    )
    parser.add_argument(
        "--tasks", type=whole(1, 100_000), default=20, help="measured ones (default 20)"
    )
    parser.add_argument(
        "--away", type=whole(1, 100_000), default=20, help="tasks that a node missed (default 20)"
    )
    parser.add_argument(
        "--settled",
        type=whole(0, 1_000_000),
        default=2000,
        help="ended tasks of a database; 0 measures no start (default 2000)",
    )
    parser.add_argument("--plot", type=arguments.new_file, metavar="FILE.svg", help="draw costs")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    if options.plot and options.plot.suffix != ".svg":
        parser.error(f"--plot: '{options.plot}' does not end in .svg")
    log_setup.configure("error", "auto")
    rows: list[dict[str, Any]] = []

    def measured() -> Iterator[dict[str, Any]]:
        for members in options.members:
            rows.append(measure(members, options))
            yield rows[-1]

    report(measured(), line, as_json=options.json)
    if options.plot:
        options.plot.write_text(plot(rows))


if __name__ == "__main__":
    one_line.run(main)
