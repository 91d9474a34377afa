from protocol.consensus.effects import State
from schemas import load


def test_terminal_states_match_section_6() -> None:
    assert {str(s) for s in State if s.terminal} == {
        "agreed",
        "agreed-error",
        "inconclusive",
        "expired",
    }


def test_certified_states_are_agreed_and_agreed_error() -> None:
    assert {s for s in State if s.certified} == {State.AGREED, State.AGREED_ERROR}


def test_states_match_the_schema() -> None:
    assert load("common")["$defs"]["state"]["enum"] == [str(s) for s in State]
