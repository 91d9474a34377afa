"""`scripts/bench scale`, as it is run, on the smallest rosters; and what its figures rest on."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from node.storage.database import open_database
from node.storage.journal import Journal
from node.storage.ledger import Ledger
from protocol.consensus.effects import State
from protocol.constants import DOCUMENT_LIMIT
from scripts.bench_tool import scale
from scripts.bench_tool.large import settled
from scripts.bench_tool.large.roster import generate
from scripts.bench_tool.large.world import Meter, counting, world
from tests.scripts.benchmark import rows_of
from tests.simulation import virtual_loop


def test_small_rosters_are_measured_and_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "costs.svg"
    sizes = ["--members", "4", "20", "--tasks", "2", "--away", "2", "--settled", "10"]
    small, large = rows_of("scale", *sizes, "--plot", str(picture))
    for members, row in ((4, small), (20, large)):
        assert row["members"] == members
        assert row["is_allowed"]
        # A task, and commits and reveals of two or three members; each is checked once.
        assert 5 <= row["task"]["signature_checks"] <= 7
        assert 5 <= row["away"]["signature_checks"] <= 7
        assert row["task"]["rankings"] == 1
        assert row["task"]["journal_bytes"] > 0
        assert row["settled"]["tasks"] == 10
        assert row["settled"]["kept_bytes_per_task"] < row["settled"]["bytes_per_task"]
        assert scale.line(row).count("extrapolated") == len(scale.RATES)
    assert small["redraw"] is None, "all are followed"
    assert 0 < large["redraw"]["ids"] < 21, "seven envelopes, where no request was repeated"
    drawing = ElementTree.parse(picture).getroot()  # noqa: S314  # it was written just now
    circles = [node for node in drawing.iter() if node.tag.endswith("circle")]
    assert len(circles) == 2 * len(scale._CURVES)


def test_what_is_listed_again_grows_with_the_members_until_it_is_dropped() -> None:
    """A day has 24 draws of twelve; each of them lists what passed since it was followed last."""
    assert scale.relisted(12, 240, new=12) == 0
    assert scale.relisted(121, 240, new=12) == 24 * 12 * 10 * 10
    most = 24 * 12 * 90 * 24 * 10
    assert scale.relisted(10**6, 240, new=12) == most


def test_a_roster_of_10000_members_is_a_valid_document() -> None:
    """Its bytes were parsed; they are more than other documents may have."""
    roster = generate(10_000)
    assert roster.is_allowed
    assert len(roster.network.roster) == 10_000
    assert len(roster.document) > DOCUMENT_LIMIT


def test_a_larger_roster_than_is_allowed_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.bench_tool.large.roster.MAX_MEMBERS", 4)
    assert generate(4).is_allowed
    larger = generate(5)
    assert not larger.is_allowed
    assert len(larger.network.roster) == 5


def test_a_node_gets_each_message_by_gossip_or_by_feeds() -> None:
    """Three members; the node is in every committee, and its votes are published once."""

    async def main() -> tuple[dict[str, float], dict[str, float], list[State | None]]:
        async with world(generate(3)) as made:
            with counting(made.counts):
                meter = Meter(made)
                first = await made.task()
                gossiped = meter.read()
                meter = Meter(made)
                second = await made.task(gossips=False)
                listed = meter.read()
            return gossiped, listed, [made.node.state(task.id) for task in (first, second)]

    gossiped, listed, states = virtual_loop.run(main)
    assert states == [State.AGREED, State.AGREED]
    assert (gossiped["received"], gossiped["envelopes"]) == (5 * 2, 0)
    assert (listed["received"], listed["envelopes"]) == (0, 5)
    assert gossiped["signature_checks"] == listed["signature_checks"] == 5


def test_copies_of_ended_tasks_are_ended_tasks(tmp_path: Path) -> None:
    path, roster = tmp_path / "node.sqlite", generate(4)

    async def main() -> None:
        async with world(roster) as made:
            await made.task()
            await made.task()
            assert settled.fill(made.node.journal._db, path, 10) == 10

    virtual_loop.run(main)
    database = open_database(path, roster.network.id)
    journal, ledger = Journal(database), Ledger(database)
    ids = [row[0] for row in database.connection.execute("SELECT id FROM tasks")]
    assert len(ids) == 10
    assert journal.open_tasks() == []
    assert all(len(ledger.certificates(task)) == 1 for task in ids)
    assert all(journal.has_envelopes(task) for task in ids)
    database.close()
    assert settled.drop_all(path, roster, 3)["free_bytes"] > 0
    assert settled.restart(path, 4)["wall_s"] > 0


def test_a_task_without_a_certificate_gives_no_figure() -> None:
    async def main() -> None:
        async with world(generate(4)) as made:
            made._say = lambda message, gossips: None  # type: ignore[method-assign]
            with pytest.raises(scale.NotCertified):
                await scale._tasks(made, 1, 0.0)

    virtual_loop.run(main)
