import re

from protocol.errors import Rejected, Rejection


def test_rejected_has_reason_and_detail() -> None:
    rejected = Rejected(Rejection.TOO_DEEP, "nested deeper than 16")
    assert rejected.reason is Rejection.TOO_DEEP
    assert rejected.detail == "nested deeper than 16"
    assert str(rejected) == "too-deep: nested deeper than 16"


def test_reason_values_are_lower_case_names() -> None:
    for reason in Rejection:
        assert str(reason) == reason.name.lower().replace("_", "-")
        assert re.fullmatch("[a-z]+(-[a-z]+)*", reason)


def test_rejected_is_not_a_value_or_type_error() -> None:
    assert not issubclass(Rejected, (ValueError, TypeError))
