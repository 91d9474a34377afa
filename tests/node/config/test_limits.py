from node.config.limits import Limits


def test_inbound_peers_never_use_all_connections() -> None:
    for maximum in (4, 5, 300):
        limits = Limits(max_connections=maximum)
        assert 0 < limits.local_connections <= limits.inbound_connections < maximum
