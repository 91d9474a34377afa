from node.admission.peer_score import PeerAction, PeerScores
from node.admission.rate_limits import MAX_KEYS
from node.config.limits import Limits

ACTION = PeerAction.INVALID_GOSSIP


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_the_threshold_bans_for_a_while_and_then_counts_anew() -> None:
    clock = Clock()
    peer_scores = PeerScores(clock)
    bans = [peer_scores.report("p", ACTION) for _ in range(int(Limits().ban_points))]
    assert bans == [False] * 19 + [True]
    assert peer_scores.is_banned("p")
    assert not peer_scores.is_banned("other")
    clock.now += Limits().ban_seconds
    assert not peer_scores.is_banned("p")
    assert not peer_scores.report("p", ACTION)


def test_a_point_is_forgiven_with_time() -> None:
    clock = Clock()
    peer_scores = PeerScores(clock)
    for _ in range(1000):
        assert not peer_scores.report("slow", ACTION)
        clock.now += 1 / Limits().forgiven_points
    assert not peer_scores.is_banned("slow")


def test_how_soon_points_are_forgiven_is_a_setting() -> None:
    clock = Clock()
    strict = PeerScores(clock, Limits(forgiven_points=0))
    for _ in range(int(Limits().ban_points) - 1):
        assert not strict.report("p", ACTION)
        clock.now += 1e6
    assert strict.report("p", ACTION)


def test_only_so_many_peers_are_remembered() -> None:
    peer_scores = PeerScores(Clock())
    for _ in range(int(Limits().ban_points)):
        peer_scores.report("first", ACTION)
    for number in range(MAX_KEYS - 1):
        peer_scores.report(str(number), ACTION)
    assert peer_scores.is_banned("first")
    peer_scores.report("one more", ACTION)
    assert not peer_scores.is_banned("first")


# Burdens


def offences(score_floors: dict[str, float]) -> int:
    """How many offences in a row it takes to be banned."""
    peer_scores = PeerScores(Clock(), score_floors=score_floors)
    assert not peer_scores.is_banned("p"), "nobody is banned who does not offend"
    return next(count for count in range(1, 100) if peer_scores.report("p", ACTION))


def test_a_burden_shortens_the_patience() -> None:
    most = int(Limits().ban_points)
    assert offences({}) == offences({"other": 99.0}) == most
    assert offences({"p": 5.0}) == most - 5
    assert offences({"p": 10.0**9}) == 1


def test_a_burden_counts_from_when_it_is_known() -> None:
    score_floors: dict[str, float] = {}
    peer_scores = PeerScores(Clock(), score_floors=score_floors)
    assert not peer_scores.report("p", ACTION)
    score_floors["p"] = Limits().ban_points
    assert peer_scores.report("p", ACTION)


def test_a_burden_outlasts_the_ban() -> None:
    clock = Clock()
    peer_scores = PeerScores(clock, score_floors={"p": Limits().ban_points})
    for _ in range(3):
        assert peer_scores.report("p", ACTION)
        clock.now += Limits().ban_seconds
        assert not peer_scores.is_banned("p")
