from node.cli.options import display_name
from tests.node.cli.certified import Certified


def test_display_name_is_the_operator_and_the_end_of_the_id(certified: Certified) -> None:
    peer = certified.certificate.signers[0]
    operator = certified.network.roster[peer].operator
    assert display_name(peer, certified.network) == f"{operator} ..{peer[-6:]}"
    assert display_name("12D3KooW" + "x" * 44, certified.network) == ".." + "x" * 12
