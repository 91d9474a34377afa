"""The report of a run: as a JSON document, and as a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.chaos_tool.checks import CheckResult

# A restart replays the journal and connects. Loading the model comes later and does not count.
SLOW_RESTART = 5.0


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """The injected faults of one network and their consequences."""

    name: str
    faults: Counter[str]
    failures: Counter[str]  # tasks of requesters that ended without a certificate, by reason
    restart_seconds: Sequence[float]
    agreement_seconds: Sequence[float]  # after the end of a partition
    checks: CheckResult
    violations: Sequence[str]
    seconds: float


def document(reports: Sequence[NetworkReport]) -> dict[str, Any]:
    """Return the figures of all networks, and their sums."""
    restarts = sorted(second for report in reports for second in report.restart_seconds)
    agreements = sorted(second for report in reports for second in report.agreement_seconds)
    return {
        "tasks": sum(sum(r.checks.final_states.values()) for r in reports),
        "tasks_settled": sum(r.checks.settled for r in reports),
        "wrong_certificates": sum(r.checks.wrong for r in reports),
        "lost_settled_tasks": sum(r.checks.lost for r in reports),
        "double_signatures": sum(r.checks.double for r in reports),
        "evidence_against_honest": sum(r.checks.accused for r in reports),
        "votes_unknown_to_their_signer": sum(r.checks.forgotten for r in reports),
        "honest_votes": sum(r.checks.votes for r in reports),
        "agreement_after_heal": _percentiles(agreements),
        "restart": {
            **_percentiles(restarts),
            "slower_than_5_s": sum(seconds > SLOW_RESTART for seconds in restarts),
        },
        "violations": [line for r in reports for line in r.violations],
        "networks": [
            {
                "name": r.name,
                "faults": dict(sorted(r.faults.items())),
                "ends": dict(r.checks.final_states),
                "requesters_met": dict(r.failures),
                "seconds": round(r.seconds, 1),
            }
            for r in reports
        ],
    }


def table(summary: dict[str, Any]) -> list[str]:
    """Return the lines of a table for people."""
    rows = [
        f"{key.replace('_', ' '):<32}{_text(figure)}"
        for key, figure in summary.items()
        if key not in ("violations", "networks")
    ]
    for network in summary["networks"]:
        rows.append(f"network {network['name']}, {network['seconds']} s")
        for key in ("faults", "ends", "requesters_met"):
            rows.append(f"  {key.replace('_', ' '):<30}{_text(network[key])}")
    return rows + [f"VIOLATION  {line}" for line in summary["violations"]]


def _text(figure: object) -> str:
    if isinstance(figure, dict):
        return ", ".join(f"{key} {_text(value)}" for key, value in figure.items()) or "none"
    return str(figure)


def _percentiles(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """Return count, median, 99th percentile and maximum of sorted durations."""
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
