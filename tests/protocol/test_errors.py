import re

from protocol.errors import Rejected, Rejection


def test_a_rejection_says_its_reason_and_what_was_found() -> None:
    rejected = Rejected(Rejection.TOO_DEEP, "nested deeper than 16")
    assert rejected.reason is Rejection.TOO_DEEP
    assert rejected.detail == "nested deeper than 16"
    assert str(rejected) == "too-deep: nested deeper than 16"


def test_reasons_travel_as_their_names_in_lower_case() -> None:
    for reason in Rejection:
        assert str(reason) == reason.name.lower().replace("_", "-")
        assert re.fullmatch("[a-z]+(-[a-z]+)*", reason)


def test_a_peers_fault_is_no_error_of_ours() -> None:
    assert not issubclass(Rejected, (ValueError, TypeError))
