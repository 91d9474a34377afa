"""The folder of a test network: locked while it is in use, replaced by the next one, or resumed."""

import contextlib
import fcntl
import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from protocol.errors import Rejected
from protocol.network import Network
from schemas.errors import HeliumError
from scripts.testnet_tool.nodes import LocalNode

# A file in every folder of a test network. Only such a folder may be replaced. Its lock is held for
# as long as the network runs.
MARK = ".testnet"
NETWORK, NODES, ENVIRONMENT = "network.json", "nodes.json", "env"
# Documents of networks that were replaced, by their ids: their certificates need them.
FORMER = "networks"


class FolderInUse(HeliumError):
    """Another test network runs in the folder."""


class FolderNotUsable(HeliumError):
    """The folder cannot be created, read or written."""


class NotResumable(HeliumError):
    """The folder holds no test network that could go on."""


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a folder for one test network, and create it if there is none.

    Raises FileExistsError if it holds anything else, FolderInUse and FolderNotUsable.
    """
    try:
        if root.is_dir() and any(root.iterdir()) and not (root / MARK).is_file():
            raise FileExistsError(f"{root} holds other files; choose an empty or new folder")
        root.mkdir(parents=True, exist_ok=True)
        opened = (root / MARK).open("ab")
    except OSError as error:
        if error.errno is None:  # raised here
            raise
        raise FolderNotUsable(f"{error.filename}: {error.strerror}") from None
    with opened as mark:
        try:
            # The lock ends with this process, however it ends. Its daemons do not inherit it.
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(f"another test network runs in {root}") from None
        yield


@contextlib.contextmanager
def locked_free(root: Path) -> Iterator[Path]:
    """Hold the first of the folders `root`, `root`-2, `root`-3 … that no test network uses."""
    with contextlib.ExitStack() as stack:
        folder, number = root, 1
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except FolderInUse:
                number += 1
                folder = root.with_name(f"{root.name}-{number}")
        yield folder


def clear(root: Path) -> None:
    """Delete what a former network left, but for its document. Files of others stay."""
    for home in root.glob("node-*"):
        shutil.rmtree(home)
    for name in (NODES, ENVIRONMENT):
        (root / name).unlink(missing_ok=True)
    document = root / NETWORK
    if not document.exists():
        return
    former = root / FORMER
    former.mkdir(exist_ok=True)
    try:
        name = Network.parse(document.read_bytes()).id
    except Rejected:  # of another version, or damaged
        name = f"unreadable-{len(list(former.iterdir())) + 1}"
    document.rename(former / f"{name}.json")


def save(root: Path, nodes: Sequence[LocalNode]) -> None:
    """Write what `load` needs, and the variables of the command line."""
    content = [{"name": node.name, "port": node.port, "lie": node.lie} for node in nodes]
    (root / NODES).write_text(json.dumps(content, indent=1) + "\n")
    lines = "".join(f"{line}\n" for line in exports(root, nodes))
    (root / ENVIRONMENT).write_text(f"# For helium on the command line: source this file.\n{lines}")


def exports(root: Path, nodes: Sequence[LocalNode]) -> list[str]:
    """Return the shell commands that make this network the one of `helium` commands."""
    peers = ",".join(node.address for node in nodes)
    return [
        f"export HELIUM_NETWORK={shlex.quote(str(root / NETWORK))}",
        f"export HELIUM_PEERS={shlex.quote(peers)}",
    ]


def _port(value: object) -> int:
    if not isinstance(value, int) or not 0 < value < 65_536:
        raise ValueError(f"{NODES} has the port {value!r}")
    return value


def load(root: Path) -> tuple[Network, list[LocalNode]]:
    """Return the network of a folder and its nodes. Raises NotResumable."""
    try:
        network = Network.parse((root / NETWORK).read_bytes())
        content = json.loads((root / NODES).read_bytes())
        nodes = [
            LocalNode.of(root, str(node["name"]), _port(node["port"]), node["lie"])
            for node in content
        ]
    except (OSError, ValueError, KeyError, TypeError, HeliumError, Rejected) as error:
        raise NotResumable(f"{root} holds no test network to resume: {error}") from None
    return network, nodes
