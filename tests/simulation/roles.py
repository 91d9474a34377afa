"""Which class plays which role of a scenario."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.simulation import adversaries, certifying, outsiders
from tests.simulation.agents import Agent, Ground

AGENTS: Mapping[str, Callable[[Ground, int], Agent]] = MappingProxyType(
    {
        "copycat": adversaries.Copycat,
        "commitment thief": adversaries.CommitmentThief,
        "commitment replayer": adversaries.CommitmentReplayer,
        "certificate forger": certifying.CertificateForger,
        "equivocator": adversaries.Equivocator,
        "split equivocator": adversaries.SplitEquivocator,
        "manifold equivocator": adversaries.ManifoldEquivocator,
        "double revealer": adversaries.DoubleRevealer,
        "misopener": adversaries.Misopener,
        "withholder": adversaries.Withholder,
        "late joiner": adversaries.LateJoiner,
        "wrong class": adversaries.Intruder,
        "intruder": adversaries.Intruder,
        "replayer": outsiders.Replayer,
        "forger": outsiders.Forger,
        "garbler": outsiders.Garbler,
        "lying feed": outsiders.LyingFeed,
        "bad requester": outsiders.BadRequester,
        "nonce grinder": outsiders.NonceGrinder,
        "flooder": outsiders.Flooder,
    }
)
