"""A liar is outvoted over real libp2p, and `helium explain` compares its samples."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Running, task


def _standings(network: Running) -> dict[str, tuple[int, int]]:
    """Return how often each peer agreed and dissented, as the first node counts."""
    seen: dict[str, Any] = network.json("peers", "--data-dir", network.nodes[0].home)
    standings = {entry["peer"]: entry["standing"] or {} for entry in seen["peers"]}
    return {peer: (s.get("agreed", 0), s.get("dissented", 0)) for peer, s in standings.items()}


# The lies are a tenth quieter, and backwards: the level of the difference in dB against the sound.
@pytest.mark.parametrize(("lie", "lowest", "highest"), [(1, -20.1, -19.9), (2, -10.0, 10.0)])
def test_each_lie_is_measured_and_counted(
    three: Running, tmp_path: Path, lie: int, lowest: float, highest: float
) -> None:
    liar = three.nodes[-1].peer
    before = _standings(three)
    lied = json.dumps(task(prompt=f"lie {lie}"))
    submitted = three.json("submit", "-", "-o", tmp_path / "song.wav", stdin=lied)
    assert submitted["state"] == "agreed"
    assert len(submitted["signers"]) == 2

    explained: dict[str, Any] = three.json("explain", submitted["task"])
    assert explained["certified"] is True
    [member] = explained["members"]
    assert member["peer"] == liar
    levels = {level["level"]: level["same"] for level in member["levels"]}
    same = dict.fromkeys(("runtime", "weights", "tokens", "work"), True)
    assert levels == {**same, "waveform": False}
    replays = explained["replays"]
    assert replays[explained["compared_with"]]["equal"] is True
    assert replays[member["outcome"]]["members"] == ["waveform"]
    difference = member["waveforms"][0]["difference"]
    assert difference["differing"] > 0
    assert lowest < difference["relative_db"] < highest
    assert "waveform differs" in member["reason"]

    for peer, (agreed, dissented) in _standings(three).items():
        added = (agreed - before[peer][0], dissented - before[peer][1])
        assert added == ((0, 1) if peer == liar else (1, 0))
    evidence = three.json("evidence", "list", "--data-dir", three.nodes[0].home)
    assert evidence["evidence"] == []


def test_a_replay_names_the_step_at_which_another_seed_drew_another_token(
    three: Running, tmp_path: Path
) -> None:
    replays, outcome, first = _replays_of_lie(three, tmp_path, "lie seed")
    assert replays[first]["equal"] is True
    assert replays[outcome]["equal"] is False
    assert replays[outcome]["difference"]["step"] < 53


def test_work_tells_a_quantised_model(three: Running, tmp_path: Path) -> None:
    """It may draw the same tokens, and so make the same sound."""
    replays, outcome, _ = _replays_of_lie(three, tmp_path, "lie quantised")
    replay = replays[outcome]
    assert replay["equal"] is False
    assert replay["difference"] is not None or "work" in replay["members"]


def _replays_of_lie(three: Running, tmp_path: Path, lie: str) -> tuple[Any, str, str]:
    """Submit a task about which the last node lies.

    Return the replays, and the digests of the liar's and of the certified outcome.
    """
    submitted = three.json(
        "submit", "-", "-o", tmp_path / "song.wav", stdin=json.dumps(task(prompt=lie))
    )
    assert len(submitted["signers"]) == 2
    explained = three.json("explain", submitted["task"])
    [member] = explained["members"]
    assert member["conduct"] == "dissented"
    return explained["replays"], member["outcome"], explained["compared_with"]
