from node.admission.lru_dict import MAX_KEYS
from node.admission.peer_score import FORGIVEN_PER_SECOND, PeerAction, PeerScores
from node.config.limits import Limits
from tests.node.admission.clock import Clock

ACTION = PeerAction.INVALID_GOSSIP


def test_reaching_ban_points_bans_for_a_while_and_resets_the_score() -> None:
    clock = Clock()
    scores = PeerScores(clock)
    bans = [scores.report("p", ACTION) for _ in range(int(Limits().ban_points))]
    assert bans == [False] * 19 + [True]
    assert scores.is_banned("p")
    assert not scores.is_banned("other")
    clock.now += Limits().ban_seconds
    assert not scores.is_banned("p")
    assert not scores.report("p", ACTION)


def test_points_decay() -> None:
    clock = Clock()
    scores = PeerScores(clock)
    for _ in range(1000):
        assert not scores.report("slow", ACTION)
        clock.now += 1 / FORGIVEN_PER_SECOND
    assert not scores.is_banned("slow")


def test_the_number_of_scored_peers_is_bounded() -> None:
    scores = PeerScores(Clock())
    for _ in range(int(Limits().ban_points)):
        scores.report("first", ACTION)
    for number in range(MAX_KEYS - 1):
        scores.report(str(number), ACTION)
    assert scores.is_banned("first")
    scores.report("one more", ACTION)
    assert not scores.is_banned("first")


# Score floors


def reports_until_ban(score_floors: dict[str, float]) -> int:
    """How many reports in a row it takes to ban a peer."""
    scores = PeerScores(Clock(), score_floors=score_floors)
    assert not scores.is_banned("p"), "a score floor alone bans nobody"
    return next(count for count in range(1, 100) if scores.report("p", ACTION))


def test_a_score_floor_lowers_the_ban_threshold() -> None:
    ban_points = int(Limits().ban_points)
    assert reports_until_ban({}) == reports_until_ban({"other": 99.0}) == ban_points
    assert reports_until_ban({"p": 5.0}) == ban_points - 5
    assert reports_until_ban({"p": 10.0**9}) == 1


def test_a_score_floor_is_read_at_each_report() -> None:
    score_floors: dict[str, float] = {}
    scores = PeerScores(Clock(), score_floors=score_floors)
    assert not scores.report("p", ACTION)
    score_floors["p"] = Limits().ban_points
    assert scores.report("p", ACTION)


def test_a_score_floor_outlasts_the_ban() -> None:
    clock = Clock()
    scores = PeerScores(clock, score_floors={"p": Limits().ban_points})
    for _ in range(3):
        assert scores.report("p", ACTION)
        clock.now += Limits().ban_seconds
        assert not scores.is_banned("p")
