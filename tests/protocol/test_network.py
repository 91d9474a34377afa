import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from protocol.errors import Rejected, Rejection
from protocol.network import Member, Network, NetworkParameters
from protocol.wire import messages
from protocol.wire.encoding import canonical
from protocol.wire.messages import Task
from tests.protocol.rejections import rejected
from tests.support import fixtures

NET = fixtures.network()
START_MS = int(fixtures.START * 1000)
Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> Network:
    document = copy.deepcopy(fixtures.network_document())
    change(document)
    return Network.parse(canonical(document))


def task_with(net: Network = NET, /, **changes: Any) -> Task:
    """Return a signed and decoded task whose body has these changes."""
    body = {**fixtures.task(net).envelope.body, **changes}
    task = fixtures.signed(net, body, 1000)
    assert isinstance(task, Task)
    return task


# The document


def test_document_is_parsed_completely() -> None:
    net = changed(lambda d: d["models"][0].update(attempt_seconds=900))
    assert net.parameters == NetworkParameters()
    assert net.classes == {fixtures.CLASS: {"device": "cpu", "torch": "2.13.0"}}
    assert list(net.roster) == [fixtures.peer(i) for i in range(4)]
    assert net.roster[fixtures.peer(2)] == Member(fixtures.peer(2), "operator-2", (fixtures.CLASS,))
    model = net.models[fixtures.MODEL]
    assert (model.id, model.revision, model.digest) == (fixtures.MODEL, "main", "d" * 64)
    assert model.tasks == ("text-to-music",)
    assert model.limits == {"max_new_tokens": 1503, "num_return_sequences": 4}
    assert model.attempt_seconds == 900


def test_parameters_come_from_the_document() -> None:
    parameters = {
        "committee_size": 5,
        "committee_max": 9,
        "commit_grace_seconds": 0.25,
        "attempt_seconds": 7,
        "max_deadline_seconds": 11,
        "clock_skew_seconds": 13,
        "max_input_bytes": 17,
        "max_output_bytes": 19,
        "follow": 23,
    }
    assert fixtures.network(**parameters).parameters == NetworkParameters(**parameters)  # type: ignore[arg-type]


def test_network_id_is_the_whole_hash() -> None:
    document = fixtures.network_document()
    assert NET.id == hashlib.sha256(b"helium/2/network\x00" + canonical(document)).hexdigest()
    assert len(NET.id) == 64


def test_any_change_gives_another_network_id() -> None:
    ids = {
        NET.id,
        changed(lambda d: d.update(name="other")).id,
        changed(lambda d: d["parameters"].update(committee_size=4)).id,
        changed(lambda d: d["roster"].pop()).id,
        changed(lambda d: d["roster"].reverse()).id,
    }
    assert len(ids) == 5


def test_json_spelling_does_not_change_the_id() -> None:
    text = canonical(fixtures.network_document())
    assert Network.parse(text.replace(b",", b" ,\n").replace(b":2,", b":2.0,")).id == NET.id


def test_a_roster_has_at_most_16384_members() -> None:
    document = fixtures.network_document(1)
    document["roster"] *= 16_384
    with rejected(Rejection.INVALID_FIELD, "is listed twice"):
        Network.of(document)
    document["roster"].append(document["roster"][0])
    with rejected(Rejection.INVALID_FIELD, "at most 16384 members"):
        Network.of(document)


def test_document_over_size_limit_is_rejected() -> None:
    text = canonical(fixtures.network_document())
    assert Network.parse(text + b" " * (8_388_608 - len(text))).id == NET.id
    with rejected(Rejection.TOO_LARGE):
        Network.parse(text + b" " * (8_388_609 - len(text)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda d: d.update(version=3), "version"),
        (lambda d: d.update(version=True), "version: true is not allowed: must be 2"),
        (lambda d: d.update(name=""), "name"),
        (lambda d: d.update(created="2026-01-01"), "created"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d.pop("roster"), "roster"),
        (lambda d: d["parameters"].pop("committee_max"), "parameters.committee_max"),
        (lambda d: d["parameters"].update(more=1), "parameters.more"),
        (lambda d: d["parameters"].update(committee_size=0), "parameters.committee_size"),
        (lambda d: d["parameters"].update(committee_max=32), "parameters.committee_max"),
        (lambda d: d["parameters"].update(commit_grace_seconds=0), "commit_grace_seconds"),
        (lambda d: d["roster"][1].update(peer="Qm"), "roster[1].peer"),
        (lambda d: d["roster"][1].pop("operator"), "roster[1].operator"),
        (lambda d: d["models"][0].update(digest="d"), "models[0].digest"),
        (lambda d: d["models"][0].update(tasks=[]), "models[0].tasks"),
        (lambda d: d["models"][0]["limits"].update(delay=-1), "models[0].limits.delay"),
        (lambda d: d["models"][0]["limits"].update(dtypes=[]), "models[0].limits.dtypes"),
        (lambda d: d["classes"].update({"a b": {"x": 1}}), "classes"),
    ],
)
def test_error_names_wrong_field(change: Change, field: str) -> None:
    with rejected(Rejection.INVALID_FIELD, field):
        changed(change)


# References between fields


def test_committee_size_over_committee_max_is_rejected() -> None:
    assert fixtures.network(committee_size=7, committee_max=7).parameters.committee_size == 7
    with rejected(Rejection.INVALID_FIELD, "parameters.committee_max"):
        fixtures.network(committee_size=7, committee_max=6)


def test_member_of_unknown_class_is_rejected() -> None:
    with rejected(Rejection.INVALID_FIELD, "roster[2].classes[1]: 'gpu' is not one of classes"):
        changed(lambda d: d["roster"][2]["classes"].append("gpu"))


@pytest.mark.parametrize("classes", [[], ["cpu", "cpu"], "cpu", [1]])
def test_member_without_distinct_classes_is_rejected(classes: Any) -> None:
    with rejected(Rejection.INVALID_FIELD, "roster[2].classes"):
        changed(lambda d: d["roster"][2].update(classes=classes))


@pytest.mark.parametrize("created", ["2026-02-30T00:00:00Z", "2025-02-29T00:00:00Z"])
def test_date_that_does_not_exist_is_rejected(created: str) -> None:
    with rejected(Rejection.INVALID_FIELD, f"created: {created} is no date"):
        changed(lambda d: d.update(created=created))


def test_document_of_version_1_is_refused_with_what_to_do() -> None:
    """As version 1 wrote it: its other members differ too, and are not what is named."""
    document = {**fixtures.network_document(), "version": 1}
    for member in document["roster"]:
        member["class"] = member.pop("classes")[0]
    with rejected(Rejection.INVALID_FIELD, "version: 1 is an earlier protocol; make the document"):
        Network.parse(canonical(document))


def test_duplicate_peer_in_roster_is_rejected() -> None:
    with rejected(Rejection.INVALID_FIELD, f"roster[3].peer: {fixtures.peer(0)} is listed twice"):
        changed(lambda d: d["roster"][3].update(peer=fixtures.peer(0)))


def test_duplicate_model_is_rejected() -> None:
    with rejected(Rejection.INVALID_FIELD, f"models[1].id: {fixtures.MODEL} is listed twice"):
        changed(lambda d: d["models"].append({**d["models"][0], "revision": "other"}))


def test_operator_may_have_several_members() -> None:
    net = changed(lambda d: [m.update(operator="one") for m in d["roster"]])
    assert {m.operator for m in net.roster.values()} == {"one"}


def two_classes(document: dict[str, Any]) -> None:
    document["classes"]["gpu"] = {"device": "cuda"}
    document["classes"]["empty"] = {"device": "none"}
    document["roster"][1]["classes"] = ["gpu"]
    document["roster"][3]["classes"] = [fixtures.CLASS, "gpu"]


def test_members_are_filtered_by_class() -> None:
    net = changed(two_classes)
    assert [m.peer for m in net.members("gpu")] == [fixtures.peer(1), fixtures.peer(3)]
    assert [m.peer for m in net.members(fixtures.CLASS)] == [fixtures.peer(i) for i in (0, 2, 3)]
    assert net.members("empty") == net.members("unheard-of") == ()
    assert net.operators("gpu") == {"operator-1", "operator-3"}
    assert net.operators("empty") == frozenset()


# Tasks


def test_attempt_seconds_of_a_slow_model() -> None:
    assert NET.attempt_seconds(fixtures.task(NET)) == 120
    net = changed(lambda d: d["models"][0].update(attempt_seconds=900))
    assert net.attempt_seconds(fixtures.task(net)) == 900


def test_task_within_limits_is_admitted() -> None:
    NET.admit(fixtures.task(NET))
    limits = {"max_new_tokens": 1503, "num_return_sequences": 4}
    NET.admit(fixtures.task(NET, generation_config=limits))
    for config in (None, {}, {"max_new_tokens": None}, {"temperature": 0}):
        NET.admit(fixtures.task(NET, generation_config=config))


def test_unknown_class_is_rejected() -> None:
    with rejected(Rejection.UNKNOWN_CLASS, "class: 'tpu' is not one of this network's: cpu"):
        NET.admit(task_with(NET, **{"class": "tpu"}))


def test_class_without_members_is_rejected() -> None:
    net = changed(two_classes)
    with rejected(Rejection.UNKNOWN_CLASS, "class: 'empty' has no member"):
        net.admit(task_with(net, **{"class": "empty"}))


def test_deadline_over_network_maximum_is_rejected() -> None:
    net = fixtures.network(max_deadline_seconds=100)
    net.admit(fixtures.task(net, deadline=100))
    with rejected(Rejection.OVER_LIMIT, "deadline: 101 is over 100 seconds"):
        net.admit(fixtures.task(net, deadline=101))


def test_unknown_model_is_rejected() -> None:
    with rejected(Rejection.UNKNOWN_MODEL, "args.model: 'no/such' is not one of this network's"):
        NET.admit(fixtures.task(NET, model="no/such"))


def test_kind_without_model_is_rejected() -> None:
    with rejected(Rejection.UNSUPPORTED_KIND, "kind: no model of this network does pop2piano"):
        NET.admit(task_with(kind="pop2piano"))


def test_model_is_rejected_for_kinds_it_is_not_listed_for() -> None:
    def two_models(document: dict[str, Any]) -> None:
        second = {**document["models"][0], "id": "another/one"}
        document["models"][0]["tasks"] = ["pop2piano"]
        document["models"].append(second)

    net = changed(two_models)
    with rejected(
        Rejection.UNSUPPORTED_KIND,
        f"args.model: {fixtures.MODEL} takes songs in args.audio (pop2piano), not a prompt",
    ):
        net.admit(fixtures.task(net))


@pytest.mark.parametrize(
    ("config", "field"),
    [({"max_new_tokens": 1504}, "max_new_tokens"), ({"num_return_sequences": 5}, "num_return_se")],
)
def test_task_over_model_limits_is_rejected(config: dict[str, int], field: str) -> None:
    with rejected(Rejection.OVER_LIMIT, f"args.generation_config.{field}"):
        NET.admit(fixtures.task(NET, generation_config=config))


# Helium classes

HELIUM_NET = Network.of(fixtures.helium_document())


def helium_task(net: Network = HELIUM_NET, /, **changes: Any) -> Task:
    return fixtures.task(net, compute_class=fixtures.HELIUM, **changes)


def piano_task(compute_class: str, **changes: Any) -> Task:
    args = fixtures.piano_args(b"song", **changes)
    return task_with(HELIUM_NET, kind="pop2piano", args=args, **{"class": compute_class})


def test_class_is_helium_by_its_engine() -> None:
    def engines(document: dict[str, Any]) -> None:
        document["classes"] |= {
            str(n): {"engine": engine}
            for n, engine in enumerate(("helium", "transformers", "Helium", 1, True))
        }

    net = changed(engines)
    assert [name for name in net.classes if net.is_helium(name)] == ["0"]


def test_task_proves_work_in_a_helium_class_by_a_model_with_replay() -> None:
    assert HELIUM_NET.proves_work(helium_task())
    assert HELIUM_NET.proves_work(piano_task(fixtures.HELIUM_PIANO))
    assert not HELIUM_NET.proves_work(helium_task(model=fixtures.UNREPLAYED))
    assert not HELIUM_NET.proves_work(fixtures.task(HELIUM_NET))
    assert not HELIUM_NET.models[fixtures.UNREPLAYED].replay


def test_class_that_runs_one_kind_of_task_rejects_the_other() -> None:
    HELIUM_NET.admit(helium_task())
    HELIUM_NET.admit(piano_task(fixtures.HELIUM_PIANO))
    HELIUM_NET.admit(piano_task(fixtures.CLASS))
    with rejected(
        Rejection.UNSUPPORTED_KIND, "class: 'helium' runs text-to-music only, not pop2piano"
    ):
        HELIUM_NET.admit(piano_task(fixtures.HELIUM))
    with rejected(
        Rejection.UNSUPPORTED_KIND, "class: 'helium-piano' runs pop2piano only, not text-to-music"
    ):
        HELIUM_NET.admit(fixtures.task(HELIUM_NET, compute_class=fixtures.HELIUM_PIANO))


def test_kind_of_a_class_counts_whatever_its_engine() -> None:
    net = changed(lambda d: d["classes"][fixtures.CLASS].update(task="pop2piano"))
    with rejected(Rejection.UNSUPPORTED_KIND, "class: 'cpu' runs pop2piano only"):
        net.admit(fixtures.task(net))


def test_message_about_a_class_is_bounded() -> None:
    net = changed(lambda d: d["classes"][fixtures.CLASS].update(task="x" * 1024))
    with pytest.raises(Rejected) as caught:
        net.admit(fixtures.task(net))
    assert len(caught.value.detail) <= 200


@pytest.mark.parametrize("beams", [None, 1])
def test_one_beam_proves_work(beams: int | None) -> None:
    config = {"num_beams": beams}
    HELIUM_NET.admit(piano_task(fixtures.HELIUM_PIANO, generation_config=config))


def test_beams_are_rejected_where_a_task_proves_work() -> None:
    config = {"num_beams": 2}
    with rejected(Rejection.OVER_LIMIT, "args.generation_config.num_beams: 2 is over 1"):
        HELIUM_NET.admit(piano_task(fixtures.HELIUM_PIANO, generation_config=config))
    HELIUM_NET.admit(piano_task(fixtures.CLASS, generation_config=config))


def test_outcome_of_a_task_that_proves_work_has_work() -> None:
    plain, proven = fixtures.outcome(), fixtures.proven()
    HELIUM_NET.check_outcome(helium_task(), proven)
    HELIUM_NET.check_outcome(fixtures.task(HELIUM_NET), plain)
    with rejected(Rejection.INVALID_FIELD, "outcome.work: is missing"):
        HELIUM_NET.check_outcome(helium_task(), plain)
    with rejected(Rejection.INVALID_FIELD, "outcome.work: is there"):
        HELIUM_NET.check_outcome(fixtures.task(HELIUM_NET), proven)


def test_outcome_is_within_max_output_bytes_with_its_tokens() -> None:
    net = Network.of(fixtures.helium_document(max_output_bytes=72))
    net.check_outcome(helium_task(net), fixtures.proven())
    net = Network.of(fixtures.helium_document(max_output_bytes=71))
    with rejected(Rejection.INVALID_FIELD, "have 72 bytes, at most 71"):
        net.check_outcome(helium_task(net), fixtures.proven())


def test_total_input_size_is_limited() -> None:
    net = fixtures.piano_network(max_input_bytes=100)
    for sizes, admitted in (((60, 40), True), ((60, 41), False), ((101,), False)):
        args = fixtures.piano_args(*(bytes([n]) * size for n, size in enumerate(sizes)))
        task = task_with(net, kind="pop2piano", args=args)
        if admitted:
            net.admit(task)
            continue
        with rejected(Rejection.OVER_LIMIT, "args.audio: 101 bytes in all are over the limit, 100"):
            net.admit(task)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": -1}, "args.seed"),
        ({"seed": 2**32}, "args.seed"),
        ({"seed": None}, "args.seed"),
        ({"prompt": ""}, "args.prompt"),
        ({"dtype": "int8"}, "args.dtype"),
        ({"quantize_bits": 3}, "args.quantize_bits"),
        ({"generation_config": {"temperature": -1}}, "args.generation_config.temperature"),
        ({"generation_config": {"top_p": 1.01}}, "args.generation_config.top_p"),
        ({"generation_config": {"beams": 2}}, "args.generation_config.beams"),
        ({"model": "../etc"}, "args.model"),
        ({"extra": 1}, "args.extra"),
    ],
)
def test_error_names_wrong_argument(changes: dict[str, Any], field: str) -> None:
    with rejected(Rejection.INVALID_FIELD, field):
        NET.admit(fixtures.task(NET, **changes))


def test_error_names_missing_seed() -> None:
    args = {name: value for name, value in fixtures.args().items() if name != "seed"}
    with rejected(Rejection.INVALID_FIELD, "args.seed: is missing"):
        NET.admit(task_with(args=args))


def test_admission_does_not_depend_on_time() -> None:
    NET.admit(fixtures.task(NET, now=0))
    NET.admit(fixtures.task(NET, now=10_000_000_000))


# Time


def test_creation_time_may_be_ahead_by_clock_skew() -> None:
    task = fixtures.task(NET, now=fixtures.START)
    NET.check_timely(task, START_MS - 60_000)
    with rejected(Rejection.CREATED_AHEAD, "created: 60 s ahead, at most 60"):
        NET.check_timely(task, START_MS - 60_001)


def test_task_is_expired_at_its_deadline() -> None:
    task = fixtures.task(NET, now=fixtures.START, deadline=600)
    NET.check_timely(task, START_MS + 599_999)
    for late in (600, 601):
        with rejected(Rejection.EXPIRED, f"deadline: passed {late - 600} s ago"):
            NET.check_timely(task, START_MS + 1000 * late)


def test_created_is_in_unix_milliseconds() -> None:
    body = {**fixtures.task(NET).envelope.body, "created": 1_750_000_000_999, "deadline": 1}
    task = fixtures.signed(NET, body, 1000)
    assert isinstance(task, messages.Task)
    NET.check_timely(task, 1_750_000_001_998)
    with rejected(Rejection.EXPIRED):
        NET.check_timely(task, 1_750_000_001_999)


def test_default_parameters_match_the_specification() -> None:
    assert asdict(NetworkParameters()) == {
        "committee_size": 3,
        "committee_max": 7,
        "commit_grace_seconds": 2,
        "attempt_seconds": 120,
        "max_deadline_seconds": 3600,
        "clock_skew_seconds": 60,
        "max_input_bytes": 33_554_432,
        "max_output_bytes": 134_217_728,
        "follow": 12,
    }
    assert fixtures.network_document()["parameters"] == asdict(NetworkParameters())
