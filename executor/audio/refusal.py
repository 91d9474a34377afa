"""How an input that cannot be decoded is refused (specification 8.7)."""

from executor.errors import TaskFailed


def refuse(condition: bool, detail: str) -> None:
    """Raise `TaskFailed("input-undecodable")` if the condition holds."""
    if condition:
        raise TaskFailed("input-undecodable", detail)
