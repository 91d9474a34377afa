"""Why something a peer said is not accepted: one exception, one enumeration of reasons."""

from enum import StrEnum

from schemas.errors import HeliumError


class Rejection(StrEnum):
    """The reasons for which foreign bytes are refused; the values travel in failure answers."""

    TOO_LARGE = "too-large"
    TOO_DEEP = "too-deep"
    MALFORMED = "malformed"
    INVALID_FIELD = "invalid-field"
    WRONG_NETWORK = "wrong-network"
    BAD_SIGNATURE = "bad-signature"
    NOT_A_MEMBER = "not-a-member"
    UNKNOWN_TASK = "unknown-task"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_CLASS = "unknown-class"
    UNSUPPORTED_KIND = "unsupported-kind"
    OVER_LIMIT = "over-limit"
    CREATED_AHEAD = "created-ahead"
    EXPIRED = "expired"
    NO_SUCH_ATTEMPT = "no-such-attempt"
    WRONG_TASK = "wrong-task"
    UNSORTED_VOTES = "unsorted-votes"
    TOO_FEW_VOTES = "too-few-votes"
    OUTCOMES_DIFFER = "outcomes-differ"
    NOT_CANONICAL = "not-canonical"
    COMMITMENT_MISSING = "commitment-missing"
    NO_CONTRADICTION = "no-contradiction"


class Rejected(HeliumError):
    """A document of another peer breaks a rule; `reason` says which, `detail` what was found.

    Raised for the remote side's faults only; our own misuse raises `ValueError` or `TypeError`.
    """

    def __init__(self, reason: Rejection, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
