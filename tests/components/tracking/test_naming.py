"""Names that say what a pipeline's params change on the committed ones; the texts are by hand."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from recorded_runs import ROOT
from ruamel.yaml import YAML

from components.config import load_params
from components.tracking.naming import run_name


def name_of(folder: Path) -> str:
    return run_name(load_params(folder / "params.yaml"), folder)


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "start"]):
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "ppo s1"),
        ({"seed": 3}, "ppo s3"),
        ({"ppo.learning_rate": 1e-4}, "ppo lr=1e-4 s1"),
        ({"policy_gradient.learning_rate": 2.5e-5, "seed": 2}, "ppo lr=2.5e-5 s2"),
        ({"sft.learning_rate": 1e-3, "ppo.gamma": 0.95}, "ppo sft.lr=1e-3 gamma=0.95 s1"),
        ({"method": "dpo"}, "dpo s1"),
        ({"method": "dpo", "ppo.gamma": 0.5, "dpo.beta": 0.2}, "dpo beta=0.2 s1"),
        (
            {"sft.epochs": 1, "judge.epochs": 1, "reward_model.epochs": 1, "ppo.gamma": 0.9, "ppo.gae_lambda": 0.9},
            "ppo sft.epochs=1 reward_model.epochs=1 judge.epochs=1 +2 more s1",
        ),
    ],
)
def test_a_name_says_what_differs_from_the_commit(committed: Path, changes: dict[str, object], name: str) -> None:
    yaml = YAML()
    content = yaml.load(committed / "params.yaml")
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[key] = value
    yaml.dump(content, committed / "params.yaml")
    assert name_of(committed) == name


def test_without_a_commit_a_name_is_the_method_and_the_seed(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert name_of(tmp_path) == "ppo s1"
