"""Adversaries of the simulation: one class for each way to break a rule.

`ADVERSARIES` maps the roles of a scenario to these classes.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.simulation.adversaries import members, outsiders
from tests.simulation.adversaries.adversary import Adversary, Environment
from tests.simulation.adversaries.certificate_forger import CertificateForger

ADVERSARIES: Mapping[str, Callable[[Environment, int], Adversary]] = MappingProxyType(
    {
        "copycat": members.Copycat,
        "commitment thief": members.CommitmentThief,
        "commitment replayer": members.CommitmentReplayer,
        "certificate forger": CertificateForger,
        "equivocator": members.Equivocator,
        "split equivocator": members.SplitEquivocator,
        "manifold equivocator": members.ManifoldEquivocator,
        "double revealer": members.DoubleRevealer,
        "misopener": members.Misopener,
        "withholder": members.Withholder,
        "late joiner": members.LateJoiner,
        "wrong class": members.Intruder,
        "intruder": members.Intruder,
        "turncoat": members.Turncoat,
        "replayer": outsiders.Replayer,
        "forger": outsiders.Forger,
        "garbler": outsiders.Garbler,
        "lying feed": outsiders.LyingFeed,
        "bad requester": outsiders.BadRequester,
        "nonce grinder": outsiders.NonceGrinder,
        "flooder": outsiders.Flooder,
        "requester thief": outsiders.RequesterThief,
        "withdrawer": outsiders.Withdrawer,
    }
)
