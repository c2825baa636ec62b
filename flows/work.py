"""What a flow run that keeps no records of its own does before it works, and after: evaluation and comparison."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.runtime import flow_run

from flows.environment import set_environment
from flows.processes import end_with_worker, processes
from flows.server import orderly
from flows.workspace import place_of_run


@contextmanager
def at_work(repository: Path, revision: str | None) -> Iterator[Path]:
    """Where the flow run works until the end of the block: the repository itself, or a clone of its own.

    Raises:
        ConfigError: no such revision.
        EnvironmentFault: another run works there, or no clone can be made.
    """
    set_environment(repository)  # a worker's process has not done it
    end_with_worker()
    run = str(flow_run.id)
    with orderly(), place_of_run(repository, run, revision) as folder, processes(run):
        yield folder
