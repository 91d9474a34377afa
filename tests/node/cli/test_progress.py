import io
from typing import Any, cast

from node.cli.progress import view
from node.client import Submission
from node.tracking import Sighting
from protocol.committee import committees
from protocol.effects import State
from tests.node.cli.certified import Made


class _Submission:
    """What the view asks of a submission."""

    def __init__(self, made: Made) -> None:
        self.tracking: Any = self
        self.task = made.certificate.task


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(made: Made, stream: io.StringIO, sightings: list[Sighting]) -> str:
    with view(made.network, cast("Submission", _Submission(made)), stream) as show:
        for sighting in sightings:
            show(sighting)
    return stream.getvalue()


def _members(made: Made) -> tuple[str, str]:
    """Return one peer in the first committee, and one that is not."""
    committee = committees(made.network, made.certificate.task)[0]
    return committee[0], next(p for p in made.network.roster if p not in committee)


def test_plain_lines_come_on_change_only(made: Made) -> None:
    member, other = _members(made)
    sightings = [
        Sighting(member, State.EXECUTING, 0, share) for share in (0.0, 0.01, 0.11, 0.12, 0.55)
    ]
    sightings += [Sighting(member, State.COMMITTED, 0, 0.0)] * 2
    sightings += [Sighting(other, State.WAITING, 0, 0.0)]
    lines = _shown(made, io.StringIO(), sightings).splitlines()
    assert [line.split("attempt 0  ")[1] for line in lines] == [
        *("executing 0%", "executing 10%", "executing 50%", "committed", "looking on")
    ]


def test_a_terminal_gets_one_table(made: Made) -> None:
    member, other = _members(made)
    sightings = [
        Sighting(member, State.EXECUTING, 0, 0.5),
        Sighting(other, State.WAITING, 0, 0.0),
    ]
    shown = _shown(made, _Terminal(), sightings)
    assert "executing  50%" in shown
    assert "looking on" in shown
