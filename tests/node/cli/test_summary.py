from node.cli.options import display_name
from node.cli.summary import said, vote_lines, votes
from node.sync.task_tracker import VoteSummary
from tests.node.cli.certified import Made


def test_dissent_is_a_revealed_outcome_that_contradicts_the_certificate(made: Made) -> None:
    one, two, three = made.certificate.signers
    agreed = made.certificate.votes[0].digest
    ballots = [
        VoteSummary(one, 0, agreed, None),
        VoteSummary(two, 0, "ff" * 32, None),
        VoteSummary(three, 0, None, "busy"),
    ]
    assert [v["dissent"] for v in votes(ballots, made.certificate)] == [False, True, False]
    assert not any(v["dissent"] for v in votes(ballots, None))
    lines = vote_lines(ballots, made.certificate, made.network)
    assert [line.endswith("DISSENT") for line in lines] == [False, True, False]
    assert lines[2].endswith("abstained: busy")


def test_a_line_says_how_a_member_voted() -> None:
    peer, outcome = "12D3KooW" + "x" * 44, "ab" * 32
    assert said(VoteSummary(peer, 0, outcome, None)) == "voted abababababababab.."
    assert said(VoteSummary(peer, 0, None, "busy")) == "abstained: busy"
    failed = VoteSummary(peer, 0, outcome, None, "no-notes", "a\u202eb")
    assert said(failed) == "voted error no-notes: a b"
    assert said(VoteSummary(peer, 0, outcome, None, "no-notes")) == (
        "voted error no-notes: no detail given"
    )


def test_a_peer_is_named_by_its_operator_and_its_end(made: Made) -> None:
    peer = made.certificate.signers[0]
    operator = made.network.roster[peer].operator
    assert display_name(peer, made.network) == f"{operator} ..{peer[-6:]}"
    assert display_name("12D3KooW" + "x" * 44, made.network) == ".." + "x" * 12
