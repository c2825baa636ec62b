"""Where everything lies, relative to the root of the repository, which is the working directory of every stage."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data")
ARTIFACTS = Path("artifacts")

CLEAN = ARTIFACTS / "data_validation" / "clean"
DATA_VALIDATION = ARTIFACTS / "data_validation"
SFT = ARTIFACTS / "sft"
REWARD_MODEL = ARTIFACTS / "reward_model"
JUDGE = ARTIFACTS / "judge"
ALIGNMENT = ARTIFACTS / "alignment"
SELECTION = ARTIFACTS / "selection"
EVALUATION = ARTIFACTS / "evaluation"

# Iteration checkpoints of unfinished stages; not a stage output, see components.alignment.run.
WORK = Path(".work")
