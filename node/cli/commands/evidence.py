"""`helium evidence`: what a node holds as proof that members contradicted themselves."""

import re
from pathlib import Path

import click

from node.cli import options
from node.cli.exit_codes import Exit, Failure, usage
from node.cli.files import FILE, read, write
from node.cli.options import display_name
from node.storage.errors import UnusableDatabase
from node.storage.reader import DATABASE, read_ledger
from protocol.consensus import evidence as proofs
from protocol.consensus.evidence import Evidence
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected
from protocol.network import Network

SHOWN = 16  # characters of an id; `export` takes any beginning of one
_BEGINNING = re.compile(r"[0-9a-f]{4,64}\Z")

EPILOG = """\b
Examples:
  helium evidence list --data-dir ~/.local/share/helium
  helium evidence export 1f0c2a -o proof.json
  helium evidence export --all -o proofs
  helium evidence verify proof.json --network network.json
"""


@click.group(epilog=EPILOG)
def evidence() -> None:
    """List, export or verify proof that a member signed what no honest one does.

    Evidence is two signed messages of one member, in one attempt at one task, that contradict each
    other. `list` and `export` read a node's data folder, also while the node runs; `verify` needs
    nothing but the file and the network document.
    """


@evidence.command("list", epilog=EPILOG)
@options.data_dir
@options.network
@options.as_json
def list_(data_dir: Path | None, network: Path | None, as_json: bool) -> None:
    """List the evidence in a node's data folder."""
    own, found = _held(data_dir, network)
    document = {"network": own.id, "evidence": [_entry(each) for each in found]}
    lines = [
        f"{each.id[:SHOWN]}  {display_name(each.signer, own)}  {' and '.join(each.types)} "
        f"in attempt {each.attempt} of task {each.task[:SHOWN]}.."
        for each in found
    ]
    options.say(document, lines or ["no evidence"], as_json)


@evidence.command(epilog=EPILOG)
@click.argument("id_", metavar="[ID]", required=False, default="")
@click.option("--all", "everything", is_flag=True, help="Every one, into the folder -o.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The file, or with --all the folder, to write; made if needed.",
)
@options.data_dir
@options.network
@options.as_json
def export(
    id_: str,
    everything: bool,
    output: Path,
    data_dir: Path | None,
    network: Path | None,
    as_json: bool,
) -> None:
    """Write the canonical document of the evidence whose id begins with ID."""
    if bool(id_) == everything:
        raise usage("give an ID, as `helium evidence list` shows it, or --all")
    own, found = _held(data_dir, network)
    chosen = found if everything else [_one(id_, found)]
    if everything:
        output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"{each.id}.json" if everything else output for each in chosen]
    for path, each in zip(paths, chosen, strict=True):
        write(path, each.encode())
    written = [
        {**_entry(each), "file": str(path)} for path, each in zip(paths, chosen, strict=True)
    ]
    lines = [f"{path}  {_claim(each, own)}" for path, each in zip(paths, chosen, strict=True)]
    options.say({"network": own.id, "evidence": written}, lines or ["no evidence"], as_json)


@evidence.command(epilog=EPILOG)
@click.argument("file", type=FILE)
@options.network
@options.as_json
def verify(file: Path, network: Path | None, as_json: bool) -> None:
    """Verify the evidence in FILE against the network document, offline; `-` is standard input.

    Checked are that the bytes are the canonical ones, that both signatures are one roster member's,
    that both messages are for this network, one task and one attempt, and that they contradict each
    other. Exit code 6, with the reason, if anything is wrong.
    """
    own = options.chosen_network(options.settings({"network": network}).network)
    try:
        found = proofs.verify_bytes(read(file, DOCUMENT_LIMIT), own)
    except Rejected as error:
        raise Failure(Exit.UNVERIFIED, f"{file}: {error}") from None
    lines = [
        f"valid      {found.id}",
        f"signed by  {found.signer} ({own.roster[found.signer].operator})",
        f"task       {found.task}",
        f"network    {own.id} ({own.document['name']})",
        f"proves     {_claim(found, own)}",
    ]
    options.say({"valid": True, "network": own.id, **_entry(found)}, lines, as_json)


def _held(data_dir: Path | None, network: Path | None) -> tuple[Network, list[Evidence]]:
    """Return the network and all evidence that the node keeps."""
    settings = options.settings({"data_dir": data_dir, "network": network})
    own = options.chosen_network(settings.network)
    try:
        with read_ledger(settings.data_dir / DATABASE, own.id) as ledger:
            return own, [proofs.verify(each, own.id) for each in ledger.evidence()]
    except UnusableDatabase as error:
        raise usage(f"{error} (--data-dir or HELIUM_DATA_DIR names the data folder)") from None


def _one(beginning: str, found: list[Evidence]) -> Evidence:
    if not _BEGINNING.match(beginning):
        raise usage(f"{beginning}: must be 4 to 64 hex characters that an id begins with")
    fitting = [each for each in found if each.id.startswith(beginning)]
    if len(fitting) != 1:
        known = f"{len(fitting)} begin so" if fitting else f"none of the {len(found)} begins so"
        raise usage(f"{beginning}: names no single evidence, {known}")
    return fitting[0]


def _entry(found: Evidence) -> dict[str, object]:
    return {
        "id": found.id,
        "kind": "equivocation",
        "signer": found.signer,
        "task": found.task,
        "attempt": found.attempt,
        "messages": list(found.types),
    }


def _claim(found: Evidence, network: Network) -> str:
    """Return in a sentence what evidence proves, and what it does not."""
    one, other = found.types
    what = (
        f"two different {one}s" if one == other else "a commit, and a reveal that does not open it"
    )
    return (
        f"{display_name(found.signer, network)} signed {what}, in attempt {found.attempt} of task "
        f"{found.task[:SHOWN]}..: no member that keeps to the protocol does. It does not show "
        "which of the two is right, nor why."
    )
