from node.admission.peer_score import Penalties
from node.admission.rate_limits import REMEMBERED
from node.config.limits import Limits


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_the_threshold_bans_for_a_while_and_then_counts_anew() -> None:
    clock = Clock()
    penalties = Penalties(clock)
    assert [penalties.punish("p") for _ in range(int(Limits().ban_points))] == [False] * 19 + [True]
    assert penalties.banned("p")
    assert not penalties.banned("other")
    clock.now += Limits().ban_seconds
    assert not penalties.banned("p")
    assert not penalties.punish("p")


def test_a_point_is_forgiven_with_time() -> None:
    clock = Clock()
    penalties = Penalties(clock)
    for _ in range(1000):
        assert not penalties.punish("slow")
        clock.now += 1 / Limits().forgiven_points
    assert not penalties.banned("slow")


def test_how_soon_points_are_forgiven_is_a_setting() -> None:
    clock = Clock()
    strict = Penalties(clock, Limits(forgiven_points=0))
    for _ in range(int(Limits().ban_points) - 1):
        assert not strict.punish("p")
        clock.now += 1e6
    assert strict.punish("p")


def test_only_so_many_peers_are_remembered() -> None:
    penalties = Penalties(Clock())
    for _ in range(int(Limits().ban_points)):
        penalties.punish("first")
    for number in range(REMEMBERED - 1):
        penalties.punish(str(number))
    assert penalties.banned("first")
    penalties.punish("one more")
    assert not penalties.banned("first")


# Burdens


def offences(score_floors: dict[str, float]) -> int:
    """How many offences in a row it takes to be banned."""
    penalties = Penalties(Clock(), score_floors=score_floors)
    assert not penalties.banned("p"), "nobody is banned who does not offend"
    return next(count for count in range(1, 100) if penalties.punish("p"))


def test_a_burden_shortens_the_patience() -> None:
    most = int(Limits().ban_points)
    assert offences({}) == offences({"other": 99.0}) == most
    assert offences({"p": 5.0}) == most - 5
    assert offences({"p": 10.0**9}) == 1


def test_a_burden_counts_from_when_it_is_known() -> None:
    score_floors: dict[str, float] = {}
    penalties = Penalties(Clock(), score_floors=score_floors)
    assert not penalties.punish("p")
    score_floors["p"] = Limits().ban_points
    assert penalties.punish("p")


def test_a_burden_outlasts_the_ban() -> None:
    clock = Clock()
    penalties = Penalties(clock, score_floors={"p": Limits().ban_points})
    for _ in range(3):
        assert penalties.punish("p")
        clock.now += Limits().ban_seconds
        assert not penalties.banned("p")
