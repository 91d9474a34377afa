"""This machine's clock as `helium doctor` reports it, beside clocks of nodes in memory."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from executor.models.folders import SHIPPED, weights_digest
from executor.worker.supervisor import WorkerStatus
from node.cli.commands.doctor import clock_report
from node.cli.commands.doctor import command as doctor
from node.cli.commands.doctor.clock_report import HOW_TO, judge
from node.cli.exit_codes import Exit, Failure
from node.client.nodes import HelloAnswer
from protocol.wire.encoding import canonical
from tests.node.cli.conftest import Helium
from tests.simulation import virtual_loop
from tests.simulation.network import run_network
from tests.support import fixtures

NET = fixtures.network()
LIMIT = NET.parameters.clock_skew_seconds
ADDRESS = f"/ip4/127.0.0.1/tcp/9/p2p/{fixtures.peer(0)}"


def answer(index: int, ahead: float, seconds: float = 0.1) -> HelloAnswer:
    """A node's answer to hello, with a clock that is ahead of this machine's."""
    return HelloAnswer(fixtures.peer(index), "helium/2", (), True, (), {}, NET.id, ahead, seconds)


def answers(*ahead: float) -> list[HelloAnswer]:
    return [answer(index, seconds) for index, seconds in enumerate(ahead)]


@pytest.mark.parametrize(
    ("ahead", "state", "detail"),
    [
        (
            0.0,
            "ok",
            "0 s ahead of the median of the other operators' clocks; the network allows 60",
        ),
        (29.9, "ok", "29.9 s behind"),
        (30.1, "warning", "30.1 s behind the median of the other operators' clocks; set it before"),
        (-59.9, "warning", "59.9 s ahead of"),
        (60.1, "fault", "60.1 s behind"),
        (-3600.0, "fault", "3600 s ahead of"),
    ],
)
def test_a_clock_is_judged_by_the_median_of_three_operators(
    ahead: float, state: str, detail: str
) -> None:
    report = judge(NET, answers(ahead, ahead, 1e9 if ahead > 0 else -1e9))
    assert (report.state, report.members_ahead_by) == (state, ahead)
    assert detail in report.detail
    assert ("set the clock and restart the node" in report.detail) == (state == "fault")


def test_two_operators_judge_no_clock_and_their_differences_are_shown() -> None:
    report = judge(NET, answers(100.0, -0.25))
    assert (report.state, report.members_ahead_by) == ("unknown", None)
    assert "2 of the 3 operators have answered who are needed" in report.detail
    assert "name members of 3 operators or more with --peer" in report.detail
    for index, text in enumerate(("+100.0 s", "-0.2 s")):
        assert f"operator-{index} ..{fixtures.peer(index)[-6:]} {text}" in report.detail


def test_strangers_and_slow_answers_tell_nothing_about_the_clock() -> None:
    strangers = [answer(index, 1e6) for index in (1001, 1002, 1003)]
    slow = [answer(index, 1e6, LIMIT / 2 + 1) for index in range(4)]
    report = judge(NET, strangers + slow)
    assert (report.state, report.differences) == ("unknown", {})
    assert "0 of the 3 operators have answered" in report.detail


@pytest.mark.parametrize("behind", [0.0, 100.0])
def test_running_nodes_tell_how_far_the_clock_is_off(behind: float) -> None:
    async def main() -> None:
        async with run_network(1, NET) as world:
            for node in world.nodes:
                node.clock._start += behind
            async with world.client() as client:
                report = judge(NET, await client.query_nodes())
        assert report.members_ahead_by == pytest.approx(behind, abs=1.0)
        assert report.state == ("fault" if behind else "ok")
        assert set(report.differences or ()) == {node.peer for node in world.nodes}

    virtual_loop.run(main)


# The command


@pytest.fixture
def run(helium: Helium, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Any]]:
    """Run `helium doctor` with a worker that is ready, and nodes that give these answers."""

    def call(*found: HelloAnswer, flags: tuple[object, ...] = ()) -> tuple[int, Any]:
        def run_with_client(target: Any, action: Callable[[Any], Awaitable[Any]]) -> Any:
            if not found:
                raise Failure(Exit.NO_NODE, "no node can be reached: connection refused")
            return list(found)

        status = WorkerStatus({"device": "cpu", "torch": "2.13.0"}, True, "", 1.5, {})
        monkeypatch.setattr(doctor, "start_worker", lambda folders, kind: status)
        monkeypatch.setattr(clock_report, "run_with_client", run_with_client)
        document = fixtures.network_document()
        document["models"][0]["digest"] = weights_digest(SHIPPED / fixtures.MODEL)
        Path("network.json").write_bytes(canonical(document))
        done = helium("doctor", "--json", "--network", "network.json", *flags)
        return done.exit_code, json.loads(done.stdout)

    return call


@pytest.mark.parametrize(("ahead", "code"), [(0.5, 0), (-40.0, 0), (90.0, 1)])
def test_doctor_is_not_ready_with_a_clock_beyond_the_limit(
    run: Callable[..., tuple[int, Any]], ahead: float, code: int
) -> None:
    exit_code, document = run(*answers(ahead, ahead, ahead), flags=("--peer", ADDRESS))
    assert (exit_code, document["ready"]) == (code, code == 0)
    clock = document["clock"]
    assert clock["state"] == {0.5: "ok", -40.0: "warning", 90.0: "fault"}[ahead]
    assert clock["members_ahead_by"] == ahead
    assert clock["differences"] == {fixtures.peer(index): ahead for index in range(3)}
    assert document["reasons"] == ([f"clock: {clock['detail']}"] if code else [])


def test_doctor_without_peers_says_how_to_check_the_clock(
    run: Callable[..., tuple[int, Any]],
) -> None:
    code, document = run()
    assert (code, document["clock"]["state"], document["clock"]["detail"]) == (0, "unknown", HOW_TO)


def test_doctor_takes_the_peers_of_a_nodes_configuration(
    run: Callable[..., tuple[int, Any]],
) -> None:
    Path("node.toml").write_text(f'peers = ["{ADDRESS}"]\n')
    code, document = run(*answers(90.0, 90.0, 90.0), flags=("--config", "node.toml"))
    assert (code, document["clock"]["state"]) == (1, "fault")


def test_peers_that_do_not_answer_leave_the_clock_unknown(
    run: Callable[..., tuple[int, Any]],
) -> None:
    code, document = run(flags=("--peer", ADDRESS))
    assert (code, document["ready"]) == (0, True)
    assert document["clock"]["detail"] == "no node can be reached: connection refused"
