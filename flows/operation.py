"""How the stages of a run are operated, by its params: time limits, pools, GPUs, the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from components.config import Params
from flows.budget import RunBudget
from flows.elsewhere import Dispatch
from flows.gpus import gpus_of, held
from flows.graph import Stage
from flows.pools import dispatches


@dataclass(frozen=True)
class Operation:
    """How one stage is.

    Args:
        timeout_minutes: when it is ended; None for never.
        gpus: how many it computes on here; it waits until other runs have left as many.
        dispatch: where it runs, if not here.
        budget: of the run; a stage that would pass it does not begin.
    """

    timeout_minutes: float | None = None
    gpus: int = 0
    dispatch: Dispatch | None = None
    budget: RunBudget | None = None

    @contextmanager
    def admitted(self, stage: str) -> Iterator[None]:
        """Begin once there are GPUs for it, if the budget has room for this stage.

        Raises:
            OverBudget: it has none.
            EnvironmentFault: there are fewer GPUs.
        """
        with held(self.gpus), self.budget.of(stage) if self.budget else nullcontext():
            yield


class Operations:
    """How those of one run are.

    Args:
        graph: all stages of the pipeline.
        folder: where the run works: the repository, or a clone.

    Raises:
        ConfigError: a pool that cannot be, or params that are not valid.
        EnvironmentFault: DVC cannot use the remote that hands over.
    """

    def __init__(self, params: Params, graph: Sequence[Stage], folder: Path, repository: Path) -> None:
        self._limits = params.orchestration.timeout_minutes
        self._gpus = gpus_of(folder)
        self._elsewhere = dispatches(params, graph, folder, repository)
        self._budget = RunBudget(params, folder)

    def of(self, stage: str) -> Operation:
        """How a stage is, by its name in the graph or in params."""
        dispatch = self._elsewhere.get(stage)
        return replace(self.here(stage), gpus=0, dispatch=dispatch) if dispatch else self.here(stage)

    def here(self, stage: str) -> Operation:
        """The same of what does not leave this machine, whatever pool the stage has."""
        return Operation(self._limits.of(stage), self._gpus, None, self._budget)
