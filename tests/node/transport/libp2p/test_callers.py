from node.transport.libp2p.callers import IdleTracker


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_who_wants_nothing_for_long_is_idle() -> None:
    clock = Clock()
    idle_tracker = IdleTracker(10, clock)
    for peer in ("silent", "asking", "gossiping", "gone"):
        idle_tracker.came(peer)
    clock.now += 9
    with idle_tracker.serving("asking"):
        clock.now += 9
        idle_tracker.active("gossiping")
        idle_tracker.left("gone")
        assert idle_tracker.idle() == ["silent"]
    clock.now += 9
    assert idle_tracker.idle() == ["silent"]
    clock.now += 9
    assert idle_tracker.idle() == ["silent", "asking", "gossiping"]


def test_who_was_dialled_is_never_idle() -> None:
    idle_tracker = IdleTracker(10, Clock())
    idle_tracker.active("dialled")
    with idle_tracker.serving("dialled"):
        pass
    assert idle_tracker.idle() == []
    assert idle_tracker._served == {}
