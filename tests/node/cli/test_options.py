from node.cli.options import display_name
from tests.node.cli.certified import Made


def test_display_name_is_the_operator_and_the_end_of_the_id(made: Made) -> None:
    peer = made.certificate.signers[0]
    operator = made.network.roster[peer].operator
    assert display_name(peer, made.network) == f"{operator} ..{peer[-6:]}"
    assert display_name("12D3KooW" + "x" * 44, made.network) == ".." + "x" * 12
