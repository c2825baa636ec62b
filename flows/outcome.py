"""What became of a stage: by the status file that its command leaves behind, and by how its processes ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed

from components.errors import USER_ERROR_STATUS, ProximalError
from components.memory import likely_reason
from components.status_file import Status
from flows.processes import Ended, signal_of
from flows.transcript import Transcript

REFUSED = "Refused"  # the name of a final state


class Outcome(StrEnum):
    """What a stage's task did."""

    UNCHANGED = "unchanged"  # nothing to do
    CONFIRMED = "confirmed"  # nothing to do either, though something before it was made anew
    RESTORED = "restored"  # DVC had the result and put it in place
    PINNED = "pinned"  # new raw data, now named by its .dvc file
    RAN = "ran"


class StageFailure(Exception):
    """A stage that did not reach its end.

    Args:
        stage: its name.
        status: what the flow exits with for it: 2 where the user can mend it, else 1.
        message: what the stage said, without traceback.
        environment: the machine's fault, not the stage's: worth another try.
    """

    def __init__(self, stage: str, status: int, message: str, *, environment: bool = False) -> None:
        super().__init__(stage, status, message)
        self.stage, self.status, self.message, self.environment = stage, status, message, environment

    def __str__(self) -> str:
        return f"stage {self.stage}: {self.message}"


class PipelineFailure(Exception):
    """One or more stages failed; the others that could run did."""

    def __init__(self, failures: list[StageFailure]) -> None:
        super().__init__("\n".join(str(failure) for failure in failures))
        self.status = USER_ERROR_STATUS if all(f.status == USER_ERROR_STATUS for f in failures) else 1


def failed(failure: ProximalError | PipelineFailure) -> State[Any]:
    """The final state of a flow: FAILED is for us and the machine; what the user can mend is no alarm, but refused."""
    if isinstance(failure, ProximalError) or failure.status == USER_ERROR_STATUS:
        return Cancelled(name=REFUSED, message=str(failure), data=failure)
    return Failed(message=str(failure), data=failure)


_CAME_TO: list[State[Any]] = []  # the flow runs of this process that have done their work, in its order


def came_to(state: State[Any]) -> State[Any]:
    """Keep what a flow run came to, which Prefect's server may not be there to hear."""
    _CAME_TO.append(state)
    return state


def unheard() -> State[Any] | None:
    """What the last flow run of this process came to; None where none has done its work."""
    return _CAME_TO[-1] if _CAME_TO else None


def outcome(stage: str, told: Status) -> Outcome:
    """What became of a stage that had changed, and was brought up to date."""
    if stage.endswith(".dvc"):
        return Outcome.PINNED
    return Outcome.RAN if told.began else Outcome.RESTORED


def failure(
    stage: str, told: Status, ended: Ended, transcript: Transcript, timeout_minutes: float | None
) -> StageFailure:
    """Why a stage did not reach its end.

    Args:
        told: by its own command.
        ended: how the processes around it did: DVC, or the supervisor.
    """
    if ended.stopped:
        return StageFailure(stage, 1, "ended with the run")
    if ended.timed_out:
        message = (
            f"ended after {timeout_minutes:g} minutes, its orchestration.timeout_minutes in params.yaml; what it has "
            "stored is kept: raise the limit, and the run goes on from there"
        )
        return StageFailure(stage, 1, message)
    if name := signal_of(ended.status):
        return killed(stage, f"the process that ran it was killed by {name}")  # and the stage with it
    if not told.began or told.exit_status == 0:  # DVC did not start it, or could not take what it made
        return StageFailure(stage, USER_ERROR_STATUS, transcript.last_words_of_dvc())
    status = told.exit_status if told.exit_status is not None else transcript.status_by_dvc()
    name = signal_of(status) if status is not None else None
    if name or told.exit_status is None:
        return killed(stage, f"was killed by {name}" if name else "was killed")
    if told.again:  # in its own words, which say why; the machine's fault and for the user to mend
        return StageFailure(stage, USER_ERROR_STATUS, transcript.message(), environment=True)
    return StageFailure(stage, USER_ERROR_STATUS if status == USER_ERROR_STATUS else 1, transcript.message())


def killed(stage: str, what: str) -> StageFailure:
    """A stage, or what asked for it, was killed: worth another try."""
    name = "SIGTERM" if "SIGTERM" in what else ""
    more = ": start the run again, which goes on from there" if name else ""
    return StageFailure(stage, 1, f"{what}; {likely_reason(name)}{more}", environment=True)
