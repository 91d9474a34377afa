"""The figures of a run: as a document, and as a table for people."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.chaos_tool.checks import Inspected

READY_SECONDS = 5.0  # a restart without the model is to take less


@dataclass(frozen=True, slots=True)
class Report:
    """One network's faults and what came of them."""

    name: str
    faults: Counter[str]
    unlucky: Counter[str]  # what requesters met besides certificates
    restarts: Sequence[float]  # seconds
    agreements: Sequence[float]  # seconds after a heal
    found: Inspected
    violations: Sequence[str]
    seconds: float


def document(reports: Sequence[Report]) -> dict[str, Any]:
    """Return everything, with sums over the networks."""
    restarts = sorted(second for report in reports for second in report.restarts)
    agreements = sorted(second for report in reports for second in report.agreements)
    return {
        "tasks": sum(sum(r.found.ends.values()) for r in reports),
        "tasks_settled": sum(r.found.settled for r in reports),
        "wrong_certificates": sum(r.found.wrong for r in reports),
        "lost_settled_tasks": sum(r.found.lost for r in reports),
        "double_signatures": sum(r.found.double for r in reports),
        "evidence_against_honest": sum(r.found.accused for r in reports),
        "votes_unknown_to_their_signer": sum(r.found.forgotten for r in reports),
        "honest_votes": sum(r.found.votes for r in reports),
        "agreement_after_heal": _spread(agreements),
        "restart": {**_spread(restarts), "slower_than_5_s": _slow(restarts)},
        "violations": [line for r in reports for line in r.violations],
        "networks": [
            {
                "name": r.name,
                "faults": dict(sorted(r.faults.items())),
                "ends": dict(r.found.ends),
                "requesters_met": dict(r.unlucky),
                "seconds": round(r.seconds, 1),
            }
            for r in reports
        ],
    }


def lines(summary: dict[str, Any]) -> list[str]:
    """Return the table."""
    rows = [(key.replace("_", " "), _shown(value)) for key, value in summary.items()]
    found = [f"{key:<32}{text}" for key, text in rows if key not in ("violations", "networks")]
    for network in summary["networks"]:
        found.append(f"network {network['name']}, {network['seconds']} s")
        for key in ("faults", "ends", "requesters_met"):
            found.append(f"  {key.replace('_', ' '):<30}{_shown(network[key])}")
    return found + [f"VIOLATION  {line}" for line in summary["violations"]]


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items()) or "none"
    return str(value)


def _slow(seconds: Sequence[float]) -> int:
    return sum(each > READY_SECONDS for each in seconds)


def _spread(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """Return count, median, 99th percentile and maximum of sorted seconds."""
    if not seconds:
        return {"count": 0, "p50": None, "p99": None, "max": None}
    last = len(seconds) - 1
    p50, p99 = seconds[round(0.5 * last)], seconds[round(0.99 * last)]
    return {
        "count": len(seconds),
        "p50": round(p50, 2),
        "p99": round(p99, 2),
        "max": round(seconds[-1], 2),
    }
