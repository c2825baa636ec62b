"""A fit that was interrupted goes on where its last checkpoint was, to the same bytes.

A checkpoint is written after every twentieth of the steps, but not before two seconds have passed since the last, and
at the end: a kill costs no more than the longer of these, and what comes after the fit can fail without it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.artifacts import atomic_folder, read_json, reading, write_json
from components.config import Compute
from components.errors import TrainingError
from components.training.fingerprint import fingerprint, weights_of
from components.training.optimizer_state import load_optimizer, optimizer_state
from components.training.sharding import put_weights, trained_weights
from components.work_folder import CURVE, Work

logger = logging.getLogger("proximal")
_CHECKPOINTS = 20  # of a fit
_SECONDS_BETWEEN = 2.0
_WEIGHTS, _OPTIMIZER, _STORED = "weights.safetensors", "optimizer.safetensors", "as_stored.json"


class Stored(NamedTuple):
    """What a checkpoint tells.

    Args:
        losses: of the steps that are done.
        seconds: that they took.
        weights, optimizer: their fingerprints.
    """

    losses: list[float]
    seconds: float
    weights: dict[str, int]
    optimizer: dict[str, int]


class Resumable:
    """One fit of a stage and its checkpoints. Every process makes one, and calls each of its methods.

    Args:
        work: the folder for checkpoints.
        name: of the stage, and `_2`, `_3`, ... for further members.
        values: of params that the fit depends on.
        inputs: digests of what the stage reads, in the first process.
        compute: whether the work of another number of processes goes on.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        work: Path,
        name: str,
        values: Mapping[str, Any],
        inputs: Mapping[str, str],
        compute: Compute,
    ) -> None:
        content = {
            "params": values,
            "precision": accelerator.mixed_precision,
            "processes": accelerator.num_processes,
            "threads": torch.get_num_threads(),
            "inputs": inputs,
        }
        content = broadcast_object_list([content])[0]  # the first process has read the inputs' digests, for all
        self._accelerator = accelerator
        self._work = Work(work, name, "steps", content)
        self._written = time.monotonic()
        self.folder = self._work.folder
        if accelerator.is_main_process:
            self._work.find(compute)
        accelerator.wait_for_everyone()

    def load(self, model: nn.Module) -> Stored | None:
        """Put the weights of the last checkpoint into a model that is not yet prepared; None where there is none.

        Raises:
            ArtifactError: it is damaged, or of another model.
        """
        self._written = time.monotonic()
        if not (self.folder / CURVE).exists():
            return None
        with reading("checkpoint of a fit", self.folder, "weights, optimiser and losses of this model"):
            put_weights(self._accelerator, model, load_file(self.folder / _WEIGHTS))
            return Stored(read_json(self.folder / CURVE), **read_json(self.folder / _STORED))

    def load_optimizer(self, model: nn.Module, optimizer: torch.optim.Optimizer, stored: Stored) -> None:
        """Fill the optimiser too, and see that both are what was stored.

        Raises:
            ArtifactError: the optimiser's file is damaged, or of another model.
            TrainingError: they are not.
        """
        load_optimizer(self.folder / _OPTIMIZER, model, optimizer)
        found = _fingerprints(model, optimizer_state(model, optimizer))
        expected = {"weights": stored.weights, "optimizer": stored.optimizer}
        if not self._accelerator.is_main_process:
            found["optimizer"] = stored.optimizer  # which the first process alone has whole
        if unlike := sorted(kind for kind in expected if found[kind] != expected[kind]):
            raise TrainingError(
                "the interrupted stage would not go on with what it had come to",
                where=str(self.folder),
                expected="what was stored there",
                found=f"other {' and '.join(unlike)}",
                do="its files changed in between: delete that folder, and the stage begins anew",
            )
        if self._accelerator.is_main_process:
            logger.info("%s: goes on after step %d", self._work.name, len(stored.losses))

    def is_due(self, done: int, total: int) -> bool:
        """Whether a checkpoint is to be written after so many steps: the first process decides for all."""
        if done == total:
            return True
        if done % max(1, total // _CHECKPOINTS):
            return False
        is_late = time.monotonic() - self._written >= _SECONDS_BETWEEN
        if self._accelerator.num_processes == 1:
            return is_late
        return bool(broadcast_object_list([is_late])[0])

    def store(self, model: nn.Module, optimizer: torch.optim.Optimizer, losses: list[float], seconds: float) -> None:
        """Write a checkpoint in place of the last one."""
        state = optimizer_state(model, optimizer)
        weights, told = trained_weights(self._accelerator, model), _fingerprints(model, state)
        if self._accelerator.is_main_process:
            self._work.write_record({str(len(losses)): seconds})
            with atomic_folder(self.folder) as folder:
                save_file(weights, folder / _WEIGHTS)
                save_file(state, folder / _OPTIMIZER)
                write_json(folder / CURVE, losses)
                write_json(folder / _STORED, {"seconds": seconds, **told})
        self._written = time.monotonic()


def _fingerprints(model: nn.Module, optimizer: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    moved = {name: weight for name, weight in weights_of({"model": model}).items() if weight.requires_grad}
    return {"weights": fingerprint(moved), "optimizer": fingerprint(optimizer)}
