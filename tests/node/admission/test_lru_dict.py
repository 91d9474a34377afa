import pytest

from node.admission import lru_dict
from node.admission.lru_dict import LruDict


def test_the_entry_written_longest_ago_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lru_dict, "MAX_KEYS", 2)
    entries: LruDict[str, int] = LruDict()
    for number, key in enumerate(["a", "b", "a", "c"]):
        entries[key] = number
    assert dict(entries) == {"a": 2, "c": 3}
    entries["a"] = 4
    entries["d"] = 5
    assert dict(entries) == {"a": 4, "d": 5}
