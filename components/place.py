"""Where everything of a project lies, from the root of its repository on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

UNDELIVERED_VARIABLE = "PROXIMAL_UNDELIVERED"  # a flow sets it: what is told in a clone outlives the clone


class ModelFolders(NamedTuple):
    """Where the frozen models are stored that a policy is measured with."""

    reference: Path
    reward_model: Path
    judge: Path


@dataclass(frozen=True)
class Place:
    """The paths of one project; `root` is by default the present folder, as it is for every stage."""

    root: Path = Path()

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def data(self) -> Path:
        """Raw rows, as people bring them."""
        return self.root / "data"

    @property
    def data_validation(self) -> Path:
        return self.root / "artifacts" / "data_validation"

    @property
    def clean(self) -> Path:
        """The rows that passed, a file a part."""
        return self.data_validation / "clean"

    @property
    def sft(self) -> Path:
        return self.root / "artifacts" / "sft"

    @property
    def reward_model(self) -> Path:
        return self.root / "artifacts" / "reward_model"

    @property
    def judge(self) -> Path:
        return self.root / "artifacts" / "judge"

    @property
    def frozen(self) -> ModelFolders:
        return ModelFolders(self.sft / "policy", self.reward_model / "model", self.judge / "model")

    @property
    def present_policy(self) -> Path:
        """What a later round begins with, in policy/: put here before its run, and made by no stage of it."""
        return self.root / "present_policy"

    @property
    def alignment(self) -> Path:
        """A folder a cycle, by its number."""
        return self.root / "artifacts" / "alignment"

    @property
    def selection(self) -> Path:
        return self.root / "artifacts" / "selection"

    @property
    def evaluation(self) -> Path:
        return self.root / "artifacts" / "evaluation"

    @property
    def promotion(self) -> Path:
        """What promotion decided last; it is no output of DVC's."""
        return self.root / "artifacts" / "promotion"

    @property
    def work(self) -> Path:
        """Checkpoints of unfinished cycles and fits: no stage's output; see components.work_folder."""
        return self.root / ".work"

    @property
    def undelivered(self) -> Path:
        """What runs told that the tracking store does not have yet; see components.tracking.journal."""
        return self.work / "undelivered"
