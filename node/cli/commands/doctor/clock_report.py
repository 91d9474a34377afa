"""What `helium doctor` says about this machine's clock, beside those of a network's operators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node.cli.exit_codes import Exit, Failure
from node.cli.options import display_name
from node.cli.session import ClientTarget, run_with_client
from node.client.client import Client
from node.client.nodes import HelloAnswer
from node.config import log_setup
from node.sync.clock_check import MIN_OPERATORS, ClockCheck
from protocol.network import Network

HOW_TO = (
    "give --network, and --peer for members of three operators or more, to compare this machine's "
    "clock with theirs"
)


@dataclass(frozen=True, slots=True)
class ClockReport:
    """The state of this machine's clock: ok, warning, fault, or unknown, and a sentence about it.

    `members_ahead_by` is the median of the operators in seconds; `differences` has, by peer id, how
    far each member's clock is ahead.
    """

    state: str
    detail: str
    members_ahead_by: float | None = None
    differences: Mapping[str, float] | None = None

    @property
    def line(self) -> str:
        """The report as a line."""
        return f"{self.state}: {self.detail}"


def check_clock(network: Network | None, peers: Sequence[str]) -> ClockReport:
    """Compare this machine's clock with those of the members among the nodes at `peers`."""
    if network is None or not peers:
        return ClockReport("unknown", HOW_TO)
    log_setup.configure("error", "auto")
    try:
        answers = run_with_client(ClientTarget(network, peers), _query)
    except Failure as failure:
        if failure.exit_code != Exit.NO_NODE:
            raise
        return ClockReport("unknown", failure.message)
    return judge(network, answers)


async def _query(client: Client) -> Sequence[HelloAnswer]:
    answers = await client.query_nodes()
    client.check_network(answers)
    return answers


def judge(network: Network, answers: Sequence[HelloAnswer]) -> ClockReport:
    """Judge this machine's clock by the answers of members. A slow answer tells too little."""
    limit, check = network.parameters.clock_skew_seconds, ClockCheck()
    differences = {
        answer.peer: answer.clock_ahead
        for answer in answers
        if answer.peer in network.roster and answer.seconds <= limit / 2
    }
    for peer, seconds in differences.items():
        check.add(peer, network.roster[peer].operator, seconds)
    state, detail = _judge(check, limit)
    if state == "unknown" and differences:
        pairs = (f"{display_name(p, network)} {s:+.1f} s" for p, s in differences.items())
        detail = f"{detail}; ahead of this machine: {', '.join(pairs)}"
    return ClockReport(state, detail, check.offset(), differences)


def _judge(check: ClockCheck, limit: float) -> tuple[str, str]:
    """Return a state and what to do. At half of the limit there is time to act."""
    offset, fault = check.offset(), check.fault(limit)
    if offset is None:
        return "unknown", (
            f"{check.describe()}: name members of {MIN_OPERATORS} operators or more with --peer"
        )
    if fault is not None:
        return "fault", fault
    if abs(offset) > limit / 2:
        return "warning", f"{check.describe()}; set it before it is more than {limit:g} s"
    return "ok", f"{check.describe()}; the network allows {limit:g} s"
