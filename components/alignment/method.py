"""What a method of alignment is: how it starts, what it does in an iteration, and what it keeps; `loop` does the rest.

A new method is its loss (a file in components.core), its section (a class in components.config) and its room: a module
here with a `Learner` and a `ROOM`. Of files that are there it touches four: components/config/base.py
and components/config/params.py (its name and its section), params.yaml (the section's values) and
components/alignment/methods.py (where its room is). To stand among the others in `proximal compare`, it is added to the
matrix in compare/dvc.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import nn

from components.config import Method, MethodSettings, Shared
from components.data.rows import Comparison, Prompt
from components.measuring.measure import FrozenModels
from components.seeding import generator
from components.self_checks import Checks
from components.training.offload import offloaded
from components.training.schedule import ParameterGroup
from components.training.sharding import sampled_from

CurveRow = dict[str, float]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Cycle:
    """One cycle as every method gets it: from one policy to the next.

    Args:
        number: from 1.
        start: the folder of the stage before: artifacts/sft for the first cycle, or present_policy in a later round;
            the last cycle's folder after it. It has policy/, and after the first cycle state/.
        work: holds the checkpoint of the last finished iteration.
        prompts: the training prompts.
        comparisons: those that the reward model was trained on.
        report: called by the first process with the curve's row after every iteration.
    """

    number: int
    start: Path
    work: Path
    prompts: list[Prompt]
    comparisons: list[Comparison]
    report: Callable[[CurveRow], None]


@dataclass(frozen=True)
class Job:
    """All that a method works with.

    Args:
        checks: what the cycle checks of itself.
        gather_for_generation: see compute in params.
        resources: closed when the cycle's iterations are done, or fail.
    """

    accelerator: Accelerator
    method: Method
    settings: MethodSettings
    shared: Shared
    cycle: Cycle
    frozen: FrozenModels
    checks: Checks = field(default_factory=Checks)
    gather_for_generation: bool = True
    resources: ExitStack = field(default_factory=ExitStack)

    @property
    def begins_as_reference(self) -> bool:
        """Whether the run's first policy is the SFT policy; that of a later round is not."""
        return self.cycle.start / "policy" == self.frozen.folders.reference

    def sampled_from(self, trained: nn.Module, frame: Any) -> AbstractContextManager[Any]:
        """Within it a policy in training, to be sampled from; see `components.training.sharding`."""
        return sampled_from(self.accelerator, trained, frame, gather=self.gather_for_generation)

    def frozen_offloaded(self, trained: nn.Module, *others: nn.Module) -> AbstractContextManager[None]:
        """Around updates: the frozen models, and others that no update needs, lie in main memory if params ask so."""
        frozen = (self.frozen.reference, *self.frozen.reward_model.models, *others)
        models = {id(model): model for model in frozen}
        asked = self.shared.language_model.offload_frozen
        return offloaded(models.values(), trained, self.accelerator.device, asked=asked)


class Source(NamedTuple):
    """Where a cycle takes up its work.

    Args:
        folder: has policy/ and perhaps state/.
        has_state: whether this method was at work there before.
        is_new_cycle: false where an interrupted cycle goes on.
    """

    folder: Path
    has_state: bool
    is_new_cycle: bool


class Trainable(NamedTuple):
    """What an optimiser moves.

    Args:
        groups: the parameters by names; the factors of their learning rates count iterations over all cycles.
    """

    model: nn.Module
    groups: Mapping[str, ParameterGroup]
    weight_decay: float


class Iteration(NamedTuple):
    """What an iteration came to.

    Args:
        row: its figures, in the first process: reward, kl (nats per sequence, k1), entropy (nats per token),
            response_tokens and ended of responses sampled in the iteration; what it cost, sampled_tokens and
            trained_tokens; and what else the method has to tell.
        seconds: what took how long.
    """

    row: CurveRow
    seconds: dict[str, float]


class Learner(Protocol):
    """A method at work on one cycle."""

    @property
    def name(self) -> str:
        """The method, as people are told of it."""

    @property
    def iterations_per_cycle(self) -> int:
        """How many are done in each cycle."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The figures of a row that are logged beside reward and kl."""

    def trainable(self) -> Trainable | None:
        """What is trained; None where nothing is."""

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Called before the first iteration with the trainable model and its optimiser, prepared by Accelerate."""

    def iterate(self, iteration: int) -> Iteration:
        """Do one iteration, counted from 0 over all cycles; every process calls it."""

    def stored(self) -> Mapping[str, nn.Module]:
        """The models that `save` writes, by name; "policy" is the one that answers. None where nothing is trained."""

    def save(self, folder: Path, model: nn.Module | None) -> None:
        """Write policy/ and, below state/, what the method's `start` needs to go on, but for optimiser and progress.

        Called in the first process alone.

        Args:
            model: the trainable one, whole.
        """

    def progress(self) -> dict[str, Any]:
        """What belongs into state/progress.json beside the number of iterations done."""


class Room(NamedTuple):
    """What the module of a method gives as its `ROOM`.

    Args:
        learns_from: which of the cycle's rows are trained on.
        start: begins a cycle at a source, or goes on with one; raises ArtifactError where what is stored is damaged or
            of another method.
    """

    learns_from: Literal["prompts", "comparisons"]
    start: Callable[[Job, Source], Learner]


def rows_of_iteration(rows: Sequence[Item], count: int, iteration: int, seed: int, stream: str) -> list[Item]:
    """The rows that an iteration works on: in a shuffled order, epoch after epoch.

    They follow from (seed, iteration) alone, so an interrupted cycle needs no generator state to go on.

    Args:
        iteration: counted from 0 over all cycles.
        stream: names the random numbers, e.g. "ppo/prompts".
    """
    chosen: list[Item] = []
    position = iteration * count
    while len(chosen) < count:
        epoch, offset = divmod(position, len(rows))
        order = torch.randperm(len(rows), generator=generator(seed, stream, epoch)).tolist()
        taken = order[offset : offset + count - len(chosen)]
        chosen += [rows[index] for index in taken]
        position += len(taken)
    return chosen


def other_rows(count: int, asked: Collection[int], iteration: int, seed: int, stream: str) -> list[int]:
    """The numbers of all rows in an order of the iteration's own, those that it works on already after the others.

    They follow from (seed, iteration) alone, as `rows_of_iteration`.
    """
    order = torch.randperm(count, generator=generator(seed, stream, "others", iteration)).tolist()
    already = set(asked)
    return sorted(order, key=already.__contains__)
