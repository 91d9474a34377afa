from node.config.limits import Limits


def test_inbound_peers_never_use_all_connections() -> None:
    for most in (4, 5, 300):
        found = Limits(max_connections=most)
        assert 0 < found.local_connections <= found.inbound_connections < most
