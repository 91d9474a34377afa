"""Whether the models of a document load: each is loaded once on this machine, in a worker.

Many faults of a model's files show only then. A listed model that does not load costs every member
an abstention for each of its tasks.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from executor.errors import Abstained
from node.cli import options
from node.cli.exit_codes import usage
from node.execution.warm_up import WARM_UP_SECONDS, loading_jobs
from protocol.network import Model
from protocol.wire.messages import Abstention

if TYPE_CHECKING:
    from executor.worker.supervisor import WorkerSupervisor

# Faults of the model, which other members would meet too. All others may be this machine's.
_UNLOADABLE = (Abstention.MODEL_MISSING, Abstention.WORKER_DIED)


def require_loading(worker: "WorkerSupervisor", models: Iterable[Model]) -> None:
    """Load each model. A usage failure names the first one that does not load, and the reason.

    Where this machine has too little memory or time for one, it says so on standard error.
    """
    for model in models:
        for job in loading_jobs(model):
            try:
                execution = worker.run(job, timeout=WARM_UP_SECONDS, progress=lambda _: None)
            except Abstained as abstained:
                if abstained.reason in _UNLOADABLE:
                    raise usage(f"--model {model.id}: {abstained.detail}") from None
                options.note(f"NOT LOADED: {model.id}: {abstained}. Load it on a member's machine")
                break
            for path in execution.files:
                path.unlink(missing_ok=True)
            if "prompt" in job.args and "error" in execution.outcome:
                # No fault for sure: a model of another script may have no sound for this prompt.
                detail = execution.trace.get("detail", "")
                options.note(
                    f"WARNING: {model.id} loads, but a short task with the prompt "
                    f"{job.args['prompt']!r} fails: {execution.outcome['error']}: {detail}"
                )
