import time

from node.clock import SystemClock


def test_now_starts_at_the_wall_clock() -> None:
    earliest = time.time()
    now = SystemClock().now()
    assert earliest - 0.001 <= now <= time.time() + 0.001


def test_a_step_of_the_wall_clock_is_ignored() -> None:
    wall, steady = [1_700_000_000.0], [50.0]
    clock = SystemClock(wall=lambda: wall[0], steady=lambda: steady[0])
    assert clock.now() == 1_700_000_000.0
    wall[0] -= 3600
    assert clock.now() == 1_700_000_000.0
    wall[0] += 7200
    steady[0] += 2.5
    assert clock.now() == 1_700_000_002.5


def test_time_never_goes_back() -> None:
    clock = SystemClock()
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(times)
    assert times[0] < times[-1]
