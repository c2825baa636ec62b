"""What the command runs, writes and prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from components.artifacts import read_json
from components.config import METHODS
from components.errors import ConfigError
from components.worlds.randomwalks.oracle import Outcome
from tests.proof import __main__ as command
from tests.proof.claims import Row
from tests.proof.measuring import Estimate
from tests.proof.stages import Size, Trial, trials, workspace

SIZE = Size(walks=10, comparisons=10, sft_samples=1, samples=1, changes={})


def row(holds: bool) -> Row:
    number = Estimate(0.8, 0.001)
    claims = {"comes near": True, "stays below": holds}
    return Row("ppo at beta 0.1", 0.1, number, number, number, Outcome(0.9, 1.0), number, 0.99, 0.01, claims)


@pytest.mark.parametrize(("holds", "status"), [(True, 0), (False, 1)])
def test_the_table_the_file_and_the_status(
    holds: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "unused")
    monkeypatch.setattr(command, "prove_graph", lambda seed, folder, methods: [row(holds or seed == 1000)])
    result = CliRunner().invoke(command.prove, ["--out", str(tmp_path), "--seed", "1000", "--seed", "1004"])
    assert result.exit_code == status
    assert "E[r]" in result.stdout and "99.0%" in result.stdout
    assert ("does not hold: graph 1004, ppo at beta 0.1: stays below" in result.stdout) is not holds
    assert "graph 1000, ppo" not in result.stdout
    stored = read_json(tmp_path / "proof.json")["graphs"]
    assert stored["1004"][0]["claims"] == {"comes near": True, "stays below": holds}
    assert stored["1004"][0]["share"] == {"mean": 0.8, "error": 0.001}
    assert stored["1004"][0]["oracle"] == {"reward": 0.9, "kl": 1.0}


def test_methods_with_a_price_are_tried_at_every_beta() -> None:
    found = trials(("ppo", "rloo"), (0.1, 0.2))
    assert [trial.name for trial in found] == [f"{m} at beta {beta}" for m in ("ppo", "rloo") for beta in (0.1, 0.2)]
    by_the_truth = {"parts": {"trained": {"weight": 0.0}, "gold": {"weight": 1.0}}}
    assert found[3].changes == {"method": "rloo", "rloo": {"kl_coef": 0.2}, "reward_model": by_the_truth}
    assert Trial("ppo", None).changes == {"method": "ppo", "reward_model": by_the_truth}
    assert Trial("best_of_n", None).changes["reward_model"] != by_the_truth


def test_all_methods_can_be_tried() -> None:
    assert {trial.method for trial in trials(METHODS, (0.1,))} == set(METHODS)


@pytest.fixture
def preset() -> Path:
    return Path(__file__).resolve().parents[2] / command.PRESET


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, preset: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="would be deleted"), workspace(tmp_path, preset, 1000, SIZE):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_graph_without_a_goal_is_refused(tmp_path: Path, preset: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to learn"), workspace(tmp_path / "w", preset, 1001, SIZE):
        pass
