from node.cli.options import display_name
from tests.node.cli.certified import Made


def test_a_peer_is_named_by_its_operator_and_its_end(made: Made) -> None:
    peer = made.certificate.signers[0]
    operator = made.network.roster[peer].operator
    assert display_name(peer, made.network) == f"{operator} ..{peer[-6:]}"
    assert display_name("12D3KooW" + "x" * 44, made.network) == ".." + "x" * 12
