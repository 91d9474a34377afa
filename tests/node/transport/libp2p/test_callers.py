from node.transport.libp2p.callers import Callers


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_who_wants_nothing_for_long_is_idle() -> None:
    clock = Clock()
    callers = Callers(10, clock)
    for peer in ("silent", "asking", "gossiping", "gone"):
        callers.came(peer)
    clock.now += 9
    with callers.serving("asking"):
        clock.now += 9
        callers.active("gossiping")
        callers.left("gone")
        assert callers.idle() == ["silent"]
    clock.now += 9
    assert callers.idle() == ["silent"]
    clock.now += 9
    assert callers.idle() == ["silent", "asking", "gossiping"]


def test_who_was_dialled_is_never_idle() -> None:
    callers = Callers(10, Clock())
    callers.active("dialled")
    with callers.serving("dialled"):
        pass
    assert callers.idle() == []
    assert callers._served == {}
