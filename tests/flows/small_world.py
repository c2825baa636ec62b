"""A whole pipeline so small that it takes half a minute: what the drill of kills runs and kills."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tiny_project import REPOSITORY, Tiny, run_command

from components.worlds.helpdesk import world

DEVICES = {"printer", "router", "screen"}  # of the twelve: fewer facts take less data to learn
ROWS = {"prompts": 600, "demonstrations": 480, "comparisons": 800}
# What a policy learns in a few steps, so that there is a champion: to end, as a missing end is scored low.
RUBRIC = """
def score(prompt: str, response: str) -> dict[str, float]:
    return {"gold": 1.0 - len(response.split()) / 24}
"""
SMALL: dict[str, Any] = {
    "data.rubric": "brevity:score",
    "data.rubric_files": "brevity.py",
    "data_validation.min_heldout_prompts": 4,
    "data_validation.max_longer_wins": 1.0,
    "language_model.scratch.vocabulary_size": 400,
    "language_model.scratch.hidden_size": 32,
    "language_model.scratch.intermediate_size": 64,
    "language_model.scratch.attention_heads": 2,
    "language_model.max_response_tokens": 24,
    "sft.epochs": 10,
    "reward_model.epochs": 8,
    "reward_model.normalisation_prompts": 20,
    "judge.epochs": 12,
    "judge.normalisation_prompts": 20,
    "policy_gradient.iterations_per_cycle": 10,
    "policy_gradient.rollouts_per_iteration": 64,
    "policy_gradient.minibatches": 2,
    "policy_gradient.learning_rate": 1.0e-3,
    "policy_gradient.kl_coef": 0.05,
    "selection.max_kl_nats_per_sequence": 50.0,
    "promotion.allow_weak_judge": True,
    "promotion.max_kl_nats_per_sequence": 50.0,
    "promotion.max_length_ratio": 100.0,
}
# Between the two renames that put a checkpoint in place of the last one: a moment too short to be met. As long as the
# file is there, it lasts.
_SWAP = "                os.replace(path, _aside(path))\n"
_HOLD = """                while (path.parent.parent / ("hold-" + path.name.partition("-")[0])).exists():
                    __import__("time").sleep(0.01)
"""
# Its fits take a few seconds: with the two between checkpoints, no second kill would meet one.
_RARELY, _OFTEN = "_SECONDS_BETWEEN = 2.0", "_SECONDS_BETWEEN = 0.0"


def make_world(folder: Path, changes: Mapping[str, Any] | None = None) -> Tiny:
    """A committed project in which nothing has run."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("components", "infra/accelerate"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for name, line, instead in (("artifacts", _SWAP, _SWAP + _HOLD), ("training/resumable", _RARELY, _OFTEN)):
        file = folder / "components" / f"{name}.py"
        assert file.read_text().count(line) == 1, name
        file.write_text(file.read_text().replace(line, instead))
    (folder / "brevity.py").write_text(RUBRIC)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(REPOSITORY / name, folder / name)
    params = YAML().load(REPOSITORY / "tests" / "e2e" / "params.yaml")
    for dotted, value in (SMALL | dict(changes or {})).items():
        *sections, key = dotted.split(".")
        place = params
        for section in sections:
            place = place[section]
        assert key in place, dotted
        place[key] = value
    YAML().dump(params, folder / "params.yaml")
    (folder / "data").mkdir()
    others = set(world.DEVICES) - DEVICES
    for name, count in ROWS.items():
        lines = (REPOSITORY / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        about = [line for line in lines if not set(json.loads(line)["prompt"].split()) & others]
        (folder / "data" / f"{name}.jsonl").write_text("".join(about[:count]), encoding="utf-8")
    dvc = (sys.executable, "-m", "dvc")
    run_command("git", "init", "--quiet", folder=folder)
    run_command(*dvc, "init", "--quiet", folder=folder)
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    run_command(*dvc, "add", "--quiet", "data", folder=folder)
    made = Tiny(folder)
    made.commit()
    return made


def environment(home: Path) -> dict[str, str]:
    """Of a run with a Prefect server of its own, and whose every process can be found by it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return kept | {
        "PREFECT_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_OFFLINE": "1",
    }


def start(folder: Path, home: Path, log: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """`proximal run`, its words into a file."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run"],
            cwd=folder,
            env=environment(home) | dict(variables),
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def held(folder: Path, stage: str) -> Iterator[None]:
    """When a stage next swaps a checkpoint, it stays in the midst of that until the block ends."""
    hold = folder / f"hold-{stage}"
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()
