from protocol.consensus.effects import State
from schemas import load


def test_the_terminal_states_are_those_of_section_6() -> None:
    assert {str(s) for s in State if s.terminal} == {
        "agreed",
        "agreed-error",
        "inconclusive",
        "expired",
    }


def test_a_certificate_stands_behind_two_of_them() -> None:
    assert {s for s in State if s.certified} == {State.AGREED, State.AGREED_ERROR}


def test_states_travel_as_the_schema_names_them() -> None:
    assert load("common")["$defs"]["state"]["enum"] == [str(s) for s in State]
