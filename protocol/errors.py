"""Why a message or document of another peer is rejected: one exception, one enumeration."""

from enum import StrEnum

from schemas.errors import HeliumError


class Rejection(StrEnum):
    """Why foreign bytes are rejected. The values travel in failure answers (section 7)."""

    TOO_LARGE = "too-large"
    TOO_DEEP = "too-deep"
    MALFORMED = "malformed"
    INVALID_FIELD = "invalid-field"
    WRONG_NETWORK = "wrong-network"
    BAD_SIGNATURE = "bad-signature"
    NOT_THE_REQUESTER = "not-the-requester"
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
    """A document of another peer breaks a rule.

    `reason` says which rule; `detail` says where and how, in at most some 200 characters. Raised
    for faults of the remote side only: our own misuse raises `ValueError` or `TypeError`.
    """

    def __init__(self, reason: Rejection, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
