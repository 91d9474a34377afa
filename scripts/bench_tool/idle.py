"""Measure what a node of an idle network costs: processor time and bytes, by node and second.

Light nodes run on loopback, each in a process of its own: the real daemon, without a model. All are
connected with all, and nobody submits anything. Each has a request wait at the feeds that it
follows. Figures are medians over the nodes; the least and the greatest stand behind them.

Processor time hardly depends on what else the machine does, unless the nodes keep all processors
busy. Then each gets less than it needs and does less than it should: a line says so.

--profile also says what the time was spent on, by samples of the running stacks every 10 ms of
processor time:

  signatures  Ed25519: verifying and signing
  own code    node, protocol, schemas with all that they call, SQLite and parsers for example
  transport   py-libp2p, trio, and node/transport
  rest        asyncio's loop, and the executor that stands in for a model

A sample says where each thread that does not wait is; the thread's own clock says how long it ran.
Samples cost time too: what is compared is to be measured without them.

    scripts/bench idle --nodes 4 10
    scripts/bench idle --nodes 10 --seconds 60 --profile --json
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from protocol.network import NetworkParameters
from scripts import arguments, one_line
from scripts.bench_tool.light.network import Meter, Usage, machine, running, spread
from scripts.bench_tool.light.samples import shares
from scripts.bench_tool.output import describe_parts, progress, report

# Share of all processors from which on the nodes lack processor time.
SATURATED = 0.9


def measure(count: int, warm_up: float, seconds: float, *, profile: bool) -> dict[str, Any]:
    """Return the figures of one network."""
    before = machine()
    with running(count, NetworkParameters(), 0.05, sample=profile) as (_, daemons):
        progress(f"{count} nodes are ready; {warm_up:g} s to warm up, {seconds:g} s to measure")
        time.sleep(warm_up)
        meter = Meter(daemons)
        time.sleep(seconds)
        return {"nodes": count, **before, **summary(meter.read(), before["processors"])}


def summary(usage: Usage, processors: float) -> dict[str, Any]:
    """Return what nodes used in a period, by node and second: milliseconds, bytes."""
    return {
        "seconds": round(usage.seconds, 1),
        "processor_ms": spread([1000 * used / usage.seconds for used in usage.processor], 2),
        "received_bytes": spread([n / usage.seconds for n in usage.received], 0),
        "sent_bytes": spread([n / usage.seconds for n in usage.sent], 0),
        "processors_busy": round(usage.processors_busy, 2),
        "saturated": usage.processors_busy > SATURATED * processors,
        "profile": shares(usage.parts),
    }


def line(row: Mapping[str, Any]) -> str:
    """Return a row in words."""
    time_of, received, sent = row["processor_ms"], row["received_bytes"], row["sent_bytes"]
    lack = "; they lack processor time and would use more" if row["saturated"] else ""
    return (
        f"{row['nodes']} nodes: {time_of['median']:.1f} ms of processor time per node and second"
        f" ({time_of['min']:.1f} to {time_of['max']:.1f}),"
        f" {received['median']:.0f} bytes received and {sent['median']:.0f} sent;"
        f" {row['processors_busy']:.2f} of {row['processors']} processors busy{lack};"
        f" load {row['load_before']} before" + describe_parts(row["profile"])
    )


def main() -> None:
    """Measure the networks that the arguments name."""
    parser = arguments.Parser("scripts/bench idle", __doc__)
    parser.add_argument(
        "--nodes",
        type=arguments.whole(2, 100),
        nargs="+",
        default=[4, 10, 30],
        help="sizes of networks, one after the other (default 4 10 30)",
    )
    parser.add_argument(
        "--warm-up",
        type=arguments.number(0, 3600, low_allowed=True),
        default=20.0,
        help="seconds after the start that are not measured (default 20)",
    )
    parser.add_argument(
        "--seconds", type=arguments.number(0, 3600), default=30.0, help="measured (default 30)"
    )
    parser.add_argument("--profile", action="store_true", help="say what the time was spent on")
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()

    def rows() -> Iterator[dict[str, Any]]:
        for count in options.nodes:
            yield measure(count, options.warm_up, options.seconds, profile=options.profile)

    report(rows(), line, as_json=options.json)


if __name__ == "__main__":
    one_line.run(main)
