"""`helium evidence`: proof that a member contradicted itself, from a node's data folder."""

import re
from collections.abc import Sequence
from pathlib import Path

import click

from node.cli import interrupts, options
from node.cli.exit_codes import Exit, Failure, usage
from node.cli.files import FILE, PathType, read, write
from node.cli.options import display_name
from node.storage.errors import UnusableDatabase
from node.storage.reader import DATABASE, read_ledger
from protocol.consensus import evidence as protocol_evidence
from protocol.consensus.evidence import Evidence, EvidenceKind
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected
from protocol.network import Network

# Characters of an id in a list. `export` looks an id up by any prefix of at least 4.
_SHORT_ID = 16
_ID_PREFIX = re.compile(r"[0-9a-f]{4,64}\Z")

EPILOG = """\b
Examples:
  helium evidence list --data-dir ~/.local/share/helium
  helium evidence export 1f0c2a -o proof.json
  helium evidence export --all -o proofs
  helium evidence verify proof.json --network network.json
"""


@click.group(epilog=EPILOG)
def evidence() -> None:
    """List, export or verify proof that a member contradicted itself.

    Evidence is two signed messages of one member for one task that contradict each other. It has
    two kinds. Equivocation: the messages are of one attempt. No member that keeps to the protocol
    signs them. Inconstancy: it revealed different outcomes in two attempts. Broken memory can cause
    that, so it counts as a dissent. `list` and `export` read a node's data folder, also while the
    node runs. `verify` needs only the file and the network document.
    """


LIST_EPILOG = """\b
Example:
  helium evidence list --data-dir ~/.local/share/helium

\b
Output, for each evidence:
  the beginning of its id, its kind (equivocation or inconstancy), the member that signed, the two
  messages, their attempts and the task
"""


@evidence.command("list", epilog=LIST_EPILOG)
@options.data_dir
@options.network
@options.as_json
def list_(data_dir: Path | None, network: Path | None, as_json: bool) -> None:
    """List the evidence in a node's data folder."""
    chosen, stored = _stored_evidence(data_dir, network)
    document = {"network": chosen.id, "evidence": [_entry(item) for item in stored]}
    lines = [
        f"{item.id[:_SHORT_ID]}  {item.kind}  {display_name(item.signer, chosen)}  "
        f"{' and '.join(item.types)} in {_attempts(item)} of task {item.task[:_SHORT_ID]}.."
        for item in stored
    ]
    options.say(document, lines or ["no evidence"], as_json)


EXPORT_EPILOG = """\b
Examples:
  helium evidence export 1f0c2a -o proof.json
  helium evidence export --all -o proofs
"""


@evidence.command(epilog=EXPORT_EPILOG)
@click.argument("id_", metavar="[ID]", required=False, default="")
@click.option("--all", "export_all", is_flag=True, help="Export all evidence into the folder -o.")
@click.option(
    "-o",
    "--output",
    type=PathType(path_type=Path),
    required=True,
    help="The file to write; with --all the folder, which is created if needed.",
)
@options.data_dir
@options.network
@options.as_json
def export(
    id_: str,
    export_all: bool,
    output: Path,
    data_dir: Path | None,
    network: Path | None,
    as_json: bool,
) -> None:
    """Write evidence to a file.

    ID is the beginning of an id that `helium evidence list` shows. The file has the canonical
    bytes, which `helium evidence verify` reads on any machine.
    """
    if bool(id_) == export_all:
        raise usage("give an ID, as `helium evidence list` shows it, or --all")
    chosen, stored = _stored_evidence(data_dir, network)
    # A file per evidence, named by the whole id, so that names cannot clash.
    if export_all:
        output.mkdir(parents=True, exist_ok=True)
        files = {output / f"{item.id}.json": item for item in stored}
    else:
        files = {output: _find(id_, stored)}
    with interrupts.cleanly():
        for path, item in files.items():
            write(path, item.encode())
    entries = [{**_entry(item), "file": str(path)} for path, item in files.items()]
    lines = [f"{path}  {_claim(item, chosen)}" for path, item in files.items()]
    options.say({"network": chosen.id, "evidence": entries}, lines or ["no evidence"], as_json)


VERIFY_EPILOG = """\b
Example:
  helium evidence verify proof.json --network network.json

\b
Output:
  valid      the id of the evidence, and its kind
  signed by  the member that contradicted itself, and its operator
  proves     what the two messages show, and what they do not
"""


@evidence.command(epilog=VERIFY_EPILOG)
@click.argument("file", type=FILE)
@options.network
@options.as_json
def verify(file: Path, network: Path | None, as_json: bool) -> None:
    """Verify the evidence in FILE, offline.

    `-` reads standard input. It checks that the bytes are canonical, that one member of the roster
    signed both messages, that both are for this network and one task, and that they contradict each
    other as the kind says. Exit code 6, with the reason, if a check fails.
    """
    chosen = options.chosen_network(options.settings({"network": network}).network)
    try:
        verified = protocol_evidence.verify_bytes(read(file, DOCUMENT_LIMIT), chosen)
    except Rejected as error:
        raise Failure(Exit.UNVERIFIED, f"{file}: {error}") from None
    lines = [
        f"valid      {verified.id} ({verified.kind})",
        f"signed by  {verified.signer} ({chosen.roster[verified.signer].operator})",
        f"task       {verified.task}",
        f"network    {chosen.id} ({chosen.document['name']})",
        f"proves     {_claim(verified, chosen)}",
    ]
    options.say({"valid": True, "network": chosen.id, **_entry(verified)}, lines, as_json)


def _stored_evidence(data_dir: Path | None, network: Path | None) -> tuple[Network, list[Evidence]]:
    """Return the network and all evidence in the node's database."""
    settings = options.settings({"data_dir": data_dir, "network": network})
    chosen = options.chosen_network(settings.network)
    try:
        with read_ledger(settings.data_dir / DATABASE, chosen.id) as ledger:
            # Verified again: the file may have been edited since the node stored it.
            return chosen, [
                protocol_evidence.verify(document, chosen.id) for document in ledger.evidence()
            ]
    except UnusableDatabase as error:
        raise options.unusable_data_dir(error) from None


def _find(prefix: str, stored: Sequence[Evidence]) -> Evidence:
    if not _ID_PREFIX.match(prefix):
        raise usage(f"{prefix}: must be the first 4 to 64 hex characters of an id")
    matches = [item for item in stored if item.id.startswith(prefix)]
    if len(matches) != 1:
        count = f"{len(matches)} ids" if matches else f"none of the {len(stored)} ids"
        raise usage(f"{prefix}: must match one evidence, but {count} begin with it")
    return matches[0]


def _entry(item: Evidence) -> dict[str, object]:
    return {
        "id": item.id,
        "kind": str(item.kind),
        "signer": item.signer,
        "task": item.task,
        "attempts": list(item.attempts),
        "messages": list(item.types),
    }


def _claim(item: Evidence, network: Network) -> str:
    """Return a sentence about what the evidence proves, and what it does not."""
    first, second = item.types
    signer, task = display_name(item.signer, network), f"{item.task[:_SHORT_ID]}.."
    if item.kind is EvidenceKind.INCONSTANCY:
        return (
            f"{signer} revealed two different outcomes, in {_attempts(item)} of task {task}: its "
            "executions differ. It does not show which is right; broken memory can do it."
        )
    messages = "a commit, and a reveal that does not open it"
    if first == second:
        messages = f"two different {first}s"
    return (
        f"{signer} signed {messages}, in {_attempts(item)} of task {task}: no member that keeps to "
        "the protocol does. It does not show which of the two is right, nor why."
    )


def _attempts(item: Evidence) -> str:
    first, second = sorted(item.attempts)
    return f"attempt {first}" if first == second else f"attempts {first} and {second}"
