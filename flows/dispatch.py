"""The command that lets one stage run on another pool: `python -m flows.dispatch REQUEST`, in the project's folder.

It hands the inputs over, starts a run of the deployment `stage` there, shows what that says, and fetches the result. It
is a process of its own so that it ends with its flow like any stage, SIGKILL of the flow included, and then cancels the
run that it started.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter
from prefect.states import Cancelling

from components import status_file
from components.errors import USER_ERROR_STATUS, EnvironmentFault, ProximalError
from flows.elsewhere import CRASHED_STATUS
from flows.hand_over import HandOver, fetch_result, send_inputs
from flows.outcome import REFUSED, Outcome

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

_LOOKS_EVERY_S = 2.0
_PATIENCE_S = 600.0  # with a server that does not answer: the stage goes on there meanwhile
_LATE_LINES = timedelta(seconds=20)  # lines of a log may come in another order than they were said
_OURS = "prefect.task_runs"  # the stage's task says what the stage says
_NOT_OURS = ("Finished in state", "Task run failed", *(f"{outcome}, " for outcome in (*Outcome, "failed", "stopped")))


def main(request: dict[str, Any]) -> int:
    """Let the stage run on its pool; return the exit status."""
    stage, remote = request["stage"], request["remote"]
    try:
        if fetch_result(stage, remote):
            print(f"DVC remote {remote} has the result already", flush=True)
            return 0
        with get_client(sync_client=True) as client:
            state = _run_there(client, request, send_inputs(stage, remote))
        if not state.is_completed():
            ended = f"its run on pool {request['pool']} ended as {state.name}"
            message = (state.message or ended).removeprefix(f"stage {stage}: ")
            print(f"error: {message}" if state.name != "Cancelled" else f"error: {ended}: {message}", flush=True)
            if state.is_crashed():
                return CRASHED_STATUS
            return USER_ERROR_STATUS if state.name == REFUSED else 1
        if not fetch_result(stage, remote):
            raise EnvironmentFault(
                "a stage ran on another pool, and its result is not in the DVC remote",
                where=f"stage {stage}, pool {request['pool']}, DVC remote {remote}",
                expected="an entry of DVC's run cache and the files that it names",
                found="none for what the stage reads here",
                do="see that nobody removes files from the remote (`dvc gc --cloud`), and run again",
            )
        if state.name == Outcome.RAN.capitalize():
            status_file.begin()
    except ProximalError as fault:
        print(f"error: {fault}", flush=True)
        return USER_ERROR_STATUS
    return 0


def _run_there(client: SyncPrefectClient, request: dict[str, Any], handed: HandOver) -> State[Any]:
    """Run the deployment to its end and return its final state."""
    run = _start(client, request, handed)
    print(f"runs on pool {request['pool']} as flow run {run.name} ({run.id})", flush=True)
    with _cancelled_with_this(client, run):
        return _follow(client, run, request["pool"])


def _start(client: SyncPrefectClient, request: dict[str, Any], handed: HandOver) -> FlowRun:
    """The run there: a new one, or where this is another try of the task, the one that the first try left running."""
    stage, parent = request["stage"], request["sent_by"]
    names = ("stage", "revision", "overrides", "variables", "remote", "sent_by", "timeout_minutes")
    parameters = {name: request[name] for name in names} | handed._asdict()
    name = f"{stage} of {client.read_flow_run(parent).name}"
    for attempt in itertools.count():
        run = client.create_flow_run_from_deployment(
            request["deployment"], parameters=parameters, name=name, idempotency_key=f"{parent} {stage} {attempt}"
        )
        if run.state is None or not run.state.is_final():
            break
    return run


@contextmanager
def _cancelled_with_this(client: SyncPrefectClient, run: FlowRun) -> Iterator[None]:
    """Whatever ends this process but SIGKILL cancels the run there, too."""
    try:
        yield
    except BaseException:
        with suppress(httpx.HTTPError):  # without a server it ends by itself: see flows.dispatched
            client.set_flow_run_state(run.id, Cancelling(message="the run that it belongs to has ended"))
        raise


def _follow(client: SyncPrefectClient, run: FlowRun, pool: str) -> State[Any]:
    """Show what a run says until it has ended.

    Raises:
        EnvironmentFault: Prefect's server does not answer for minutes.
    """
    shown: set[Any] = set()
    since, last, seen = datetime.now(UTC) - _LATE_LINES, time.monotonic(), ""
    while True:
        try:
            state = client.read_flow_run(run.id).state
            wanted = {"flow_run_id": {"any_": [run.id]}, "timestamp": {"after_": since}}
            lines = client.read_logs(LogFilter.model_validate(wanted))
            last = time.monotonic()
        except httpx.HTTPError as fault:
            if time.monotonic() - last > _PATIENCE_S:
                raise EnvironmentFault(
                    "Prefect's server does not answer",
                    where=str(client.api_url),
                    found=f"{type(fault).__name__}, for {_PATIENCE_S / 60:.0f} minutes",
                    do="start it, and run again: a stage that has ended meanwhile is not run again",
                ) from fault
            time.sleep(_LOOKS_EVERY_S)
            continue
        for line in lines:
            if line.id not in shown and line.name == _OURS and not line.message.startswith(_NOT_OURS):
                print(line.message, flush=True)
            shown.add(line.id)
        if lines:
            since = max(since, lines[-1].timestamp - _LATE_LINES)
        if state is not None and state.is_final():
            return state
        if state is not None and state.name != seen and state.name in ("Late", "AwaitingConcurrencySlot"):
            seen = state.name
            print(f"waits for a worker of pool {pool} that is free: {seen}", flush=True)
        time.sleep(_LOOKS_EVERY_S)


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(json.loads(sys.argv[1])))
