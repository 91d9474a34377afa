"""What a job came to, by its worker's last message."""

from typing import TypeAlias

from executor.errors import Abstained, RunAlone, TokensDiffer
from executor.job import Difference, Execution, Job
from executor.worker.messages import (
    JobAbstained,
    JobDeferred,
    JobDifferent,
    JobDone,
    JobEnd,
    JobFailed,
)
from executor.worker.process import WorkerDied
from executor.worker.scratch import Outputs
from protocol.wire.messages import Abstention

End: TypeAlias = Execution | Abstained | TokensDiffer | RunAlone


def end_of(message: JobEnd, job: Job, outputs: Outputs, *, alone: bool) -> End | JobFailed:
    """Return what a job came to by its last message. Raises `WorkerDied` for what is untrue."""
    match message:
        case JobAbstained(reason, detail):
            return Abstained(reason, detail)
        case JobDone(outcome, trace):
            return Execution(dict(outcome), outputs.files(outcome), dict(trace))
        case JobDeferred():
            if alone:
                raise WorkerDied("the worker deferred a job that runs alone")
            return RunAlone("the worker could not run it beside the others")
        case JobFailed():
            outputs.discard()
            return message
        case JobDifferent(sequence, step, column):
            if not job.tokens:
                raise WorkerDied("the worker replayed a job without tokens")
            return TokensDiffer(Difference(sequence, step, column))


def is_memory_in_doubt(end: End | JobFailed) -> bool:
    """Return whether the worker is to end: libraries may be undefined after a failed allocation."""
    return isinstance(end, Abstained) and end.reason is Abstention.OUT_OF_MEMORY


def stopped_end() -> Abstained:
    """Return the end of a job that was told to stop."""
    return Abstained(Abstention.TIMEOUT, "the job was stopped")


def past_deadline() -> Abstained:
    """Return the end of a job that ran for longer than it may."""
    return Abstained(Abstention.TIMEOUT, "the job ran past its deadline")
