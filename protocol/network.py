"""The network document: everything that peers must have in common (specification 3).

`Network` is the parsed document. It also decides which tasks the network admits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from protocol import manifest, model_limits
from protocol.constants import NETWORK_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.wire.codec import check_schema
from protocol.wire.encoding import Document, Json, document_hash, parse
from protocol.wire.messages import Task
from protocol.wire.signing import public_key_of
from schemas.errors import printable

# Characters of an error message: with the field's name it fits the 256 bytes of a failure answer.
_MAX_MESSAGE = 200
# The engine of a runtime whose arithmetic is stated, so that all processors compute alike (8.3).
HELIUM = "helium"
# What a task of each kind gives its model, in the words of a message.
_INPUTS = {"text-to-music": "a prompt", "pop2piano": "songs in args.audio"}


@dataclass(frozen=True, slots=True)
class NetworkParameters:
    """The `parameters` of a network document (specification 3); seconds and bytes.

    The defaults are the specification's.
    """

    committee_size: int = 3
    committee_max: int = 7
    commit_grace_seconds: float = 2
    attempt_seconds: float = 120
    max_deadline_seconds: int = 3600
    clock_skew_seconds: float = 60
    max_input_bytes: int = 33_554_432
    max_output_bytes: int = 134_217_728
    follow: int = 12


@dataclass(frozen=True, slots=True)
class Member:
    """One line of the roster."""

    peer: str
    operator: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """One listed model. `attempt_seconds` replaces the network's for slow models.

    `limits` are those of the document, unknown members included (specification 3.6). With `replay`
    its tasks prove work in helium classes (specification 8.11).
    """

    id: str
    revision: str
    digest: str
    tasks: tuple[str, ...]
    limits: Document
    attempt_seconds: float | None
    replay: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """A valid network document, parsed. Immutable: a changed document is another network."""

    document: Document
    id: str
    parameters: NetworkParameters
    classes: Mapping[str, Document]
    models: Mapping[str, Model]
    roster: Mapping[str, Member]
    _members: Mapping[str, tuple[Member, ...]] = field(init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        return hash(self.id)

    def __post_init__(self) -> None:
        members = {
            name: tuple(m for m in self.roster.values() if name in m.classes)
            for name in self.classes
        }
        object.__setattr__(self, "_members", members)

    @staticmethod
    def parse(text: bytes) -> "Network":
        """Return the network of a document's bytes. Raises Rejected, naming the field."""
        return Network.of(parse(text, NETWORK_LIMIT))

    @staticmethod
    def of(document: Json) -> "Network":
        """Return the network of a parsed document. Raises Rejected, naming the field."""
        _check_version(document)
        check_schema("network", document)
        assert isinstance(document, Mapping)  # noqa: S101  # the schema says so
        fields: Mapping[str, Any] = document
        network = Network(
            document,
            document_hash("network", document),
            NetworkParameters(**fields["parameters"]),
            fields["classes"],
            _by("models", "id", [_model(entry) for entry in fields["models"]]),
            _by("roster", "peer", [_member(entry) for entry in fields["roster"]]),
        )
        network._check_references()
        return network

    def _check_references(self) -> None:
        _check_date("created", str(self.document["created"]))
        if self.parameters.committee_max < self.parameters.committee_size:
            raise Rejected(
                Rejection.INVALID_FIELD,
                "parameters.committee_max: is smaller than parameters.committee_size",
            )
        for index, member in enumerate(self.roster.values()):
            _check_peer(f"roster[{index}].peer", member.peer)
            for position, name in enumerate(member.classes):
                if name not in self.classes:
                    raise Rejected(
                        Rejection.INVALID_FIELD,
                        f"roster[{index}].classes[{position}]: {name!r} is not one of classes",
                    )

    def members(self, compute_class: str) -> tuple[Member, ...]:
        """Return the roster members of a class, in the document's order."""
        return self._members.get(compute_class, ())

    def operators(self, compute_class: str) -> frozenset[str]:
        """Return the operators that have a member in a class."""
        return frozenset(member.operator for member in self.members(compute_class))

    def is_helium(self, compute_class: str) -> bool:
        """Return whether a listed class computes with the stated arithmetic (8.3)."""
        return self.classes[compute_class].get("engine") == HELIUM

    def runs(self, compute_class: str, kind: str) -> bool:
        """Return whether a listed class runs tasks of a kind: its runtime may name its only one."""
        return self.classes[compute_class].get("task", kind) == kind

    def proves_work(self, task: Task) -> bool:
        """Return whether the outcome of an admitted task has work and tokens (8.11)."""
        return self.is_helium(task.compute_class) and self.models[task.model].replay

    def check_outcome(self, task: Task, outcome: Document) -> None:
        """Raise Rejected(INVALID_FIELD) unless an outcome is one that an admitted task can have.

        What a reveal is checked for once its task is known (specification 8.2). `outcome` fits its
        schema.
        """
        manifest.check_work(outcome, proves_work=self.proves_work(task))
        manifest.check_fits(outcome, task.kind, task.args, self.parameters.max_output_bytes)

    def attempt_seconds(self, task: Task) -> float:
        """Return how long an attempt at the task lasts before the next one starts."""
        model_seconds = self.models[task.model].attempt_seconds
        return self.parameters.attempt_seconds if model_seconds is None else model_seconds

    def with_max_new_tokens(self, args: Document, seconds: float) -> Document:
        """Return a task's arguments with `max_new_tokens` for so many seconds of audio.

        An unlisted model is left to `admit`. Raises as `model_limits.with_max_new_tokens`.
        """
        model = self.models.get(str(args.get("model")))
        if model is None:
            return args
        return model_limits.with_max_new_tokens(model.limits, args, seconds)

    def audio_seconds(self, task: Task) -> float | None:
        """Return the seconds of audio that an admitted task asks for; None if it does not say."""
        return model_limits.audio_seconds(self.models[task.model].limits, task.args)

    def admit(self, task: Task) -> None:
        """Raise Rejected unless the task is valid for this network, at any time.

        Checks the class, the deadline's length, the kind, the arguments, the model and its limits:
        what a certificate's task is checked for, too (specification 3.8).
        """
        if task.compute_class not in self.classes:
            raise Rejected(
                Rejection.UNKNOWN_CLASS, _not_one_of("class", task.compute_class, self.classes)
            )
        # Without members there is no committee, and the task could never end (specification 3.8).
        if not self.members(task.compute_class):
            raise Rejected(
                Rejection.UNKNOWN_CLASS,
                f"class: {task.compute_class!r} has no member in the roster",
            )
        if task.deadline > self.parameters.max_deadline_seconds:
            limit = self.parameters.max_deadline_seconds
            raise Rejected(
                Rejection.OVER_LIMIT, f"deadline: {task.deadline} is over {limit} seconds"
            )
        self._admit_model(task)

    def check_kind(self, kind: str, name: str) -> None:
        """Raise Rejected if a model is listed and does not serve a kind of task."""
        model = self.models.get(name)
        if model is not None and kind not in model.tasks:
            served = " or ".join(f"{_INPUTS[task]} ({task})" for task in model.tasks)
            raise Rejected(
                Rejection.UNSUPPORTED_KIND,
                f"args.model: {model.id} takes {served}, not {_INPUTS[kind]} ({kind})",
            )

    def check_defaults(self, task: Task) -> None:
        """Raise Rejected if an admitted task leaves out what its model cannot do by default.

        For clients: the task is valid, but it can only fail (`model_limits.default_objection`).
        """
        limits = self.models[task.model].limits
        if objection := model_limits.default_objection(task.kind, limits, task.args):
            raise Rejected(Rejection.OVER_LIMIT, objection)

    def _admit_model(self, task: Task) -> None:
        name = task.args.get("model")
        # The kind comes first, because it names the schema of the arguments.
        if not any(task.kind in model.tasks for model in self.models.values()):
            raise Rejected(
                Rejection.UNSUPPORTED_KIND, f"kind: no model of this network does {task.kind}"
            )
        if not self.runs(task.compute_class, task.kind):
            only = printable(str(self.classes[task.compute_class]["task"]))
            raise Rejected(
                Rejection.UNSUPPORTED_KIND,
                f"class: {task.compute_class!r} runs {only} only, not {task.kind}"[:_MAX_MESSAGE],
            )
        check_schema(task.kind, task.args, "args")
        model = self.models.get(str(name))
        if model is None:
            raise Rejected(
                Rejection.UNKNOWN_MODEL, _not_one_of("args.model", str(name), self.models)
            )
        self.check_kind(task.kind, model.id)
        if objection := model_limits.objection(model.limits, task.args):
            raise Rejected(Rejection.OVER_LIMIT, objection)
        self._check_beams(task)
        # Inputs travel with the submission: their sum bounds what a node has to store for a task.
        size, limit = sum(i.size for i in task.inputs), self.parameters.max_input_bytes
        if size > limit:
            raise Rejected(
                Rejection.OVER_LIMIT, f"args.audio: {size} bytes in all are over the limit, {limit}"
            )

    def _check_beams(self, task: Task) -> None:
        """Raise Rejected if a task that proves work asks for beams: no single sequence is drawn."""
        config: Any = task.args.get("generation_config") or {}
        beams = config.get("num_beams")
        if beams not in (None, 1) and self.proves_work(task):
            raise Rejected(
                Rejection.OVER_LIMIT,
                f"args.generation_config.num_beams: {beams} is over 1, which tasks that prove work"
                " need",
            )

    def check_timely(self, task: Task, now_ms: int) -> None:
        """Raise Rejected(CREATED_AHEAD or EXPIRED) by the Unix time in whole milliseconds.

        Every node thus draws the same line (specification 3.8).
        """
        ahead = task.created - now_ms
        if ahead > 1000 * self.parameters.clock_skew_seconds:
            skew = self.parameters.clock_skew_seconds
            raise Rejected(
                Rejection.CREATED_AHEAD,
                f"created: {ahead / 1000:.0f} s ahead, at most {skew:g} are allowed",
            )
        late = now_ms - task.created - 1000 * task.deadline
        if late >= 0:
            raise Rejected(Rejection.EXPIRED, f"deadline: passed {late / 1000:.0f} s ago")


def _model(entry: Mapping[str, Any]) -> Model:
    return Model(
        entry["id"],
        entry["revision"],
        entry["digest"],
        tuple(entry["tasks"]),
        entry["limits"],
        entry.get("attempt_seconds"),
        entry.get("replay", False),
    )


def _member(entry: Mapping[str, Any]) -> Member:
    return Member(entry["peer"], entry["operator"], tuple(entry["classes"]))


def _check_version(document: Json) -> None:
    """Raise Rejected for a document of protocol version 1, which no migration exists for."""
    version = document.get("version") if isinstance(document, Mapping) else None
    if version == 1 and version is not True:
        raise Rejected(
            Rejection.INVALID_FIELD,
            "version: 1 is an earlier protocol; make the document anew with "
            "'helium network create'",
        )


def _check_date(field: str, text: str) -> None:
    """Raise Rejected for a date that does not exist, such as 30 February or a day of year 0."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise Rejected(Rejection.INVALID_FIELD, f"{field}: {text} is no date") from None


def _check_peer(field: str, peer: str) -> None:
    """Raise Rejected for a peer id without a key: it would take a seat and could never vote."""
    try:
        public_key_of(peer)
    except Rejected as rejected:
        raise Rejected(Rejection.INVALID_FIELD, f"{field}: {rejected.detail}") from None


def _by(field: str, key: str, entries: list[Any]) -> dict[str, Any]:
    """Return the entries by their attribute `key`. Raises Rejected for a duplicate."""
    entries_by_key: dict[str, Any] = {}
    for index, entry in enumerate(entries):
        name = getattr(entry, key)
        if name in entries_by_key:
            raise Rejected(
                Rejection.INVALID_FIELD, f"{field}[{index}].{key}: {name} is listed twice"
            )
        entries_by_key[name] = entry
    return entries_by_key


def _not_one_of(field: str, value: str, allowed: Mapping[str, object]) -> str:
    message = f"{field}: {value!r} is not one of this network's: {', '.join(allowed) or 'none'}"
    return message[:_MAX_MESSAGE]
