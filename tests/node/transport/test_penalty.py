from node.transport import penalty
from node.transport.penalty import BAN_SECONDS, FORGIVEN_PER_SECOND, THRESHOLD, Penalties


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_the_threshold_bans_for_a_while_and_then_counts_anew() -> None:
    clock = Clock()
    penalties = Penalties(clock)
    assert [penalties.punish("p") for _ in range(int(THRESHOLD))] == [False] * 19 + [True]
    assert penalties.banned("p")
    assert not penalties.banned("other")
    clock.now += BAN_SECONDS
    assert not penalties.banned("p")
    assert not penalties.punish("p")


def test_a_point_is_forgiven_with_time() -> None:
    clock = Clock()
    penalties = Penalties(clock)
    for _ in range(1000):
        assert not penalties.punish("slow")
        clock.now += 1 / FORGIVEN_PER_SECOND
    assert not penalties.banned("slow")


def test_only_so_many_peers_are_remembered() -> None:
    penalties = Penalties(Clock())
    for _ in range(int(THRESHOLD)):
        penalties.punish("first")
    for number in range(penalty.REMEMBERED - 1):
        penalties.punish(str(number))
    assert penalties.banned("first")
    penalties.punish("one more")
    assert not penalties.banned("first")
