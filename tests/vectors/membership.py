"""Vectors of network documents and committees."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.consensus.committee import committees, quorum, ranking
from protocol.errors import Rejection
from protocol.network import Network
from protocol.wire.encoding import canonical, tagged_hash
from tests.support import fixtures
from tests.vectors import signatures
from tests.vectors.entries import Entry, Vectors, refused

Change = Callable[[Any], object]

GPU: Entry = {"device": "gpu", "torch": "2.13.0"}


def _parameter(**changes: Any) -> Change:
    return lambda d: d["parameters"].update(changes)


def _created(time: str) -> Change:
    return lambda d: d.update(created=time)


def _model(**changes: Any) -> Change:
    return lambda d: d["models"][0].update(changes)


def _limits(**limits: Any) -> Change:
    return _model(limits=limits)


def _many_limits(number: int) -> Change:
    return _limits(**{f"limit{n}": n for n in range(number)})


def _member(**changes: Any) -> Change:
    return lambda d: d["roster"][0].update(changes)


def _two_classes(**changes: Any) -> Change:
    def change(document: Any) -> None:
        document["classes"]["gpu"] = GPU
        document["roster"][0].update({"classes": ["cpu", "gpu"]} | changes)

    return change


def _helium(**changes: Any) -> Change:
    def change(document: Any) -> None:
        document["classes"]["cpu"] = {"engine": "helium", "arithmetic": 1, "task": "text-to-music"}
        document["models"][0].update(changes)

    return change


def _many_classes(number: int) -> Change:
    def change(document: Any) -> None:
        names = ["cpu", *(f"c{n}" for n in range(number - 1))]
        document["classes"] = dict.fromkeys(names, GPU)
        document["roster"][0].update(classes=names)

    return change


ACCEPTED: dict[str, Change] = {
    "four members": lambda d: None,
    "nobody yet": lambda d: d.update(roster=[]),
    "nothing yet": lambda d: d.update(roster=[], models=[], classes={}),
    "other parameters": _parameter(
        committee_size=5,
        commit_grace_seconds=0.25,
        max_output_bytes=1,
        clock_skew_seconds=3600,
        follow=4096,
    ),
    "a committee that does not grow": _parameter(committee_size=31, committee_max=31),
    "a slow model": _model(attempt_seconds=900),
    "a model of both kinds": _model(tasks=["text-to-music", "pop2piano"]),
    "a model without an owner": _model(id="m" * 96),
    "a leap day, and decimals of a second": lambda d: d.update(
        created="2024-02-29T23:59:59.000001Z"
    ),
    "the first day": _created("0001-01-01T00:00:00Z"),
    "a member of two classes": _two_classes(),
    "a member of 64 classes": _many_classes(64),
    "every limit": _limits(
        max_new_tokens=65536,
        num_return_sequences=16,
        prompt_characters=4096,
        output_seconds=86400,
        composers=[f"composer{n}" for n in range(256)],
        generation_config=[],
        dtypes=["float16", "bfloat16", "float32"],
        quantize_bits=[4, 8],
        input_seconds=600,
        frame_rate=49.95,
        delay=65535,
    ),
    "64 limits": _many_limits(64),
    "an unknown limit": _limits(voices=["anna", {"x": None}], max_new_tokens=1),
    "a helium class and a model with replay": _helium(replay=True),
    "a model without replay": _model(replay=False),
    "the most bytes of outputs": _parameter(max_output_bytes=159_383_552),
    "any engine and any task of a runtime": lambda d: d.update(
        classes={"cpu": {"engine": 1, "task": "neither"}}
    ),
}

# Values that known limits may not have, by the name of the limit.
OTHER_FORMS: dict[str, dict[str, Any]] = {
    "max_new_tokens": {"0": 0, "65,537": 65_537, "a text": "9"},
    "num_return_sequences": {"0": 0, "17": 17},
    "prompt_characters": {"0": 0, "4,097": 4097, "null": None},
    "output_seconds": {"0": 0, "86,401": 86_401, "a half": 0.5},
    "composers": {
        "empty": [],
        "257": [f"composer{n}" for n in range(257)],
        "one twice": ["a", "a"],
        "no characters": [""],
        "65 characters": ["x" * 65],
        "not ASCII": ["é"],
        "a line feed": ["a\n"],
    },
    "generation_config": {"an unknown member": ["seed"], "twice": ["top_k", "top_k"]},
    "dtypes": {"empty": [], "auto": ["auto"]},
    "quantize_bits": {"2": [2], "a text": ["4"]},
    "input_seconds": {"0": 0, "601": 601},
    "frame_rate": {"0": 0, "65,537": 65_537},
    "delay": {"-1": -1, "65,536": 65_536, "a half": 0.5},
}

REFUSED: dict[str, Change] = {
    "version 1": lambda d: d.update(version=1),
    "version 3": lambda d: d.update(version=3),
    "an unknown member": lambda d: d.update(extra=1),
    "a missing member": lambda d: d.pop("roster"),
    "a missing parameter": lambda d: d["parameters"].pop("committee_max"),
    "an unknown parameter": _parameter(extra=1),
    "no committee": _parameter(committee_size=0),
    "a committee of 32": _parameter(committee_max=32),
    "a committee larger than the largest": _parameter(committee_max=2),
    "no grace": _parameter(commit_grace_seconds=0),
    "a grace of 61 s": _parameter(commit_grace_seconds=61),
    "an attempt of no time": _parameter(attempt_seconds=0),
    "half a second of skew": _parameter(clock_skew_seconds=0.5),
    "no member to follow": _parameter(follow=0),
    "4,097 members to follow": _parameter(follow=4097),
    "half a member to follow": _parameter(follow=0.5),
    "a replay that is a number": _model(replay=1),
    "a replay that is null": _model(replay=None),
    "more outputs than a reveal can list": _parameter(max_output_bytes=159_383_553),
    "a peer twice": lambda d: d["roster"].append(d["roster"][0]),
    "a peer twice, with another operator": lambda d: d["roster"].append(
        d["roster"][0] | {"operator": "another"}
    ),
    "a member of 65 classes": _many_classes(65),
    "a member of no class": _member(classes=[]),
    "a member of an unknown class": _member(classes=["cpu", "gpu"]),
    "a member of one class twice": _member(classes=["cpu", "cpu"]),
    "a member with one class in version 1's form": _member(**{"class": "cpu"}),
    "an operator without a name": _member(operator=""),
    "a line feed at the end of an operator": _member(operator="a\n"),
    "a line feed at the end of the name": lambda d: d.update(name="test\n"),
    "a model twice": lambda d: d["models"].append(d["models"][0]),
    "a model id with two dots": _model(id="a/b..c"),
    "a model id of three parts": _model(id="a/b/c"),
    "a model id of 97 letters": _model(id="m" * 97),
    "a line feed at the end of a model id": _model(id="a/b\n"),
    "a digest in capitals": _model(digest="D" * 64),
    "a line feed at the end of a digest": _model(digest="d" * 64 + "\n"),
    "a model that serves nothing": _model(tasks=[]),
    "a model that serves a kind twice": _model(tasks=["pop2piano", "pop2piano"]),
    "a class of an empty runtime": lambda d: d["classes"].update(gpu={}),
    "a class of a nested runtime": lambda d: d["classes"].update(gpu={"a": [1]}),
    "a class with a space": lambda d: d["classes"].update({"g pu": GPU}),
    "a class with a line feed at the end": lambda d: d["classes"].update({"gpu\n": GPU}),
    "a time without a T": _created("2026-01-01 00:00:00Z"),
    "a time of another zone": _created("2026-01-01T00:00:00+01:00"),
    "a time with 7 decimals": _created("2026-01-01T00:00:00.1234567Z"),
    "a line feed at the end of a time": _created("2026-01-01T00:00:00Z\n"),
    **{
        f"created on {date}": _created(f"{date}T00:00:00Z")
        for date in ("2026-02-29", "1900-02-29", "2026-04-31", "2026-13-01", "0000-01-01")
    },
    "a leap second": _created("2016-12-31T23:59:60Z"),
    "65 limits": _many_limits(65),
    "a limit with a long name": _limits(**{"a" * 65: 1}),
    "a limit whose name has a line feed at the end": _limits(**{"a\n": 1}),
    "a limit whose name begins with a digit": _limits(**{"1a": 1}),
    "limits that are a list": _model(limits=[]),
    **{
        f"limit {name} of another form: {form}": _limits(**{name: value})
        for name, forms in OTHER_FORMS.items()
        for form, value in forms.items()
    },
}


def networks() -> Vectors:
    """Network documents and their ids."""
    return {
        "description": "Section 3. `id` is the network id of `document`, whose canonical form is"
        " `canonical`. The texts of `refused` are no valid network documents.",
        "accepted": [_network(name, _changed(change)) for name, change in ACCEPTED.items()],
        "refused": [
            refused(name, Rejection.INVALID_FIELD, canonical(_changed(change)), Network.parse)
            for name, change in {**REFUSED, **_keys()}.items()
        ],
    }


def _network(name: str, document: Entry) -> Entry:
    network = Network.of(document)
    text = canonical(document).decode()
    return {"name": name, "document": document, "canonical": text, "id": network.id}


def _changed(change: Change) -> Entry:
    document = copy.deepcopy(fixtures.network_document())
    change(document)
    return document


def _keys() -> dict[str, Change]:
    invalid = {
        f"a member whose key is: {key['name']}": _member(peer=key["peer"])
        for key in signatures.key_entries()
        if key["reason"]
    }
    return {
        "a member that is no peer": _member(peer="someone"),
        "a member that fits the pattern and is no peer id": _member(peer=signatures.NO_PEER),
        "a line feed at the end of a peer id": _member(peer=fixtures.peer(0) + "\n"),
        **invalid,
    }


@dataclass(frozen=True)
class Case:
    """Operators of the members; those of `others` are of the class `gpu` too, or of it alone."""

    operators: str
    size: int
    largest: int
    both: Sequence[int] = ()
    only_gpu: Sequence[int] = ()


COMMITTEES = {
    "each its own operator": Case("abcdefgh", 3, 7),
    "several members of one operator": Case("aaabbcdefg", 3, 7),
    "an operator with most of the members": Case("aaaaaaabc", 3, 7),
    "fewer operators than places": Case("aaabbc", 4, 6),
    "two operators": Case("aaabbb", 3, 7),
    "one operator": Case("aaaa", 3, 7),
    "one operator of many members": Case("aaaaaaaaa", 3, 7),
    "fewer members than asked for": Case("ab", 3, 7),
    "growth that stops at the largest": Case("abcdefg", 2, 5),
    "one member": Case("a", 1, 1),
    "members of two classes": Case("abcdef", 3, 7, both=(0, 3), only_gpu=(1, 4)),
    "one operator in the class, others in another": Case("aaabbc", 3, 7, only_gpu=(3, 4, 5)),
}


def committee_vectors() -> Vectors:
    """Rankings and committees."""
    return {
        "description": "Section 5. `parameters` and `roster` are those of the network document."
        " For a task with the id `task` and the class `class`: `operators` is o of rule 1,"
        " `ranking` the members of the class by ascending `rank` (hex); `attempts` are the"
        " committees, in the order of choice, with their quorums, up to the last attempt.",
        "committees": [
            _committee(f"{name}, task {nonce}", case, nonce)
            for name, case in COMMITTEES.items()
            for nonce in range(2)
        ],
    }


def _committee(name: str, case: Case, nonce: int) -> Entry:
    count = len(case.operators)
    document = fixtures.network_document(
        count, committee_size=case.size, committee_max=case.largest
    )
    document["classes"]["gpu"] = GPU
    for index, member in enumerate(document["roster"]):
        member["operator"] = f"operator-{case.operators[index]}"
        if index in case.both:
            member["classes"] = ["gpu", "cpu"]
        elif index in case.only_gpu:
            member["classes"] = ["gpu"]
    network = Network.of(document)
    task = fixtures.task(network, nonce=nonce)
    members = network.members(fixtures.CLASS)
    operators = len(network.operators(fixtures.CLASS))
    return {
        "name": name,
        "parameters": {"committee_size": case.size, "committee_max": case.largest},
        "roster": document["roster"],
        "class": fixtures.CLASS,
        "task": task.id,
        "operators": len(members) if operators == 1 else operators,
        "ranking": [
            {"peer": m.peer, "rank": _rank(task.id, m.peer)} for m in ranking(task.id, members)
        ],
        "attempts": [
            {"committee": list(committee), "quorum": quorum(len(committee))}
            for committee in committees(network, task)
        ],
    }


def _rank(task: str, peer: str) -> str:
    return tagged_hash("committee", bytes.fromhex(task) + peer.encode()).hex()
