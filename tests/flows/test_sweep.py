"""The shipped Optuna example on a project whose stages take no time: trials below one run, pruned, failed, resumed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from ruamel.yaml import YAML
from tiny_project import REPOSITORY, Tiny

RATE, KL = "policy_gradient.learning_rate", "policy_gradient.target_kl_nats_per_sequence"
CYCLES = {"1": {"start": "artifacts/sft"}, "2": {"start": "artifacts/alignment/1"}}
# Judged by a formula of its values: the second cycle is twice as good as the first. It may wait, or fail.
CYCLE = f"""
import json, os, sys, time
from pathlib import Path
from ruamel.yaml import YAML

params = YAML(typ="safe").load(Path("params.yaml"))["policy_gradient"]
rate, kl = params["{RATE.partition(".")[2]}"], params["{KL.partition(".")[2]}"]
cycle, log = int(sys.argv[1]), Path(os.environ["TINY_LOG"])
log.open("a").write(f"cycle {{cycle}} {{rate}} {{kl}}\\n")
folder = Path(f"artifacts/alignment/{{cycle}}")
(folder / "policy").mkdir(parents=True)
(folder / "policy" / "weights").write_text(f"{{cycle}} {{rate}} {{kl}}")
(folder / "metrics.json").write_text(json.dumps({{"validation": {{"judge": cycle * rate * 100, "kl": kl}}}}))
while cycle == 2 and log.with_name("waits").exists():
    time.sleep(0.1)
if cycle == 2 and log.with_name("fails").exists():
    sys.exit("this one fails")
"""
SELECTION = """
import json
from pathlib import Path

last = json.loads(Path("artifacts/alignment/2/metrics.json").read_text())["validation"]
Path("artifacts/selection").mkdir()
chosen = {"judge": last["judge"], "kl": last["kl"], "cycle": 2, "within_ceiling": last["kl"] < 3.5, "cost": {}}
Path("artifacts/selection/selection.json").write_text(json.dumps(chosen))
Path("artifacts/evaluation").mkdir()
interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
side = dict.fromkeys(("gold", "judge", "kl", "reward", "response_tokens"), interval)
whole = {"sft": side, "candidate": side, "difference": side, "win_rate": interval}
Path("artifacts/evaluation/metrics.json").write_text(json.dumps(whole))
"""


@pytest.fixture
def project(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_api: str) -> Tiny:
    """Two cycles and what comes after them; the stages note in a log outside of their clones that they ran."""
    (tiny.folder / "cycle.py").write_text(CYCLE)
    (tiny.folder / "choose.py").write_text(SELECTION)
    before = {"1": "data", "2": "artifacts/alignment/1/metrics.json"}
    cycle = {
        "foreach": before,
        "do": {
            "cmd": "python cycle.py ${key}",
            "deps": ["${item}"],
            "params": ["policy_gradient"],
            "outs": ["artifacts/alignment/${key}/policy", "artifacts/alignment/${key}/metrics.json"],
        },
    }
    made = ["artifacts/selection/selection.json", "artifacts/evaluation/metrics.json"]
    selection = {"cmd": "python choose.py", "deps": ["artifacts/alignment/2/metrics.json"], "outs": made}
    YAML().dump({"stages": {"alignment": cycle, "selection": selection}}, tiny.folder / "dvc.yaml")
    params = YAML().load(tiny.folder / "params.yaml")
    params["cycles"] = CYCLES
    YAML().dump(params, tiny.folder / "params.yaml")
    with (tiny.folder / ".gitignore").open("a") as ignored:
        ignored.write("/artifacts\n")
    tiny.commit()
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return tiny


def start(project: Tiny, name: str, trials: int) -> subprocess.Popen[str]:
    words = ["-m", "examples.optuna_sweep", "--study", name, "--trials", str(trials)]
    return subprocess.Popen(
        [sys.executable, *words], cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    said, complained = process.communicate()
    return process.returncode, said, complained


def study_of(project: Tiny, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{project.folder / f'.work/sweeps/{name}.db'}")


def runs_below(name: str) -> tuple[Any, dict[str, Any]]:
    """A study's own run, and the runs below it by their trial's number."""
    from components.tracking import store

    ids = [store.experiment_id()]
    [above] = store.client().search_runs(ids, f"tags.stage = 'sweep' AND tags.sweep = '{name}'")
    below = store.client().search_runs(ids, f"tags.mlflow.parentRunId = '{above.info.run_id}'")
    return above, {run.data.tags["trial"]: run for run in below}


def wait_for(path: Path, words: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 400
    while not (path.exists() and words in path.read_text()):
        assert process.poll() is None, ended(process)
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_killed_study_goes_on_and_says_what_became_of_each_trial(project: Tiny, tmp_path: Path) -> None:
    (tmp_path / "waits").touch()
    killed = start(project, "tiny", trials=1)
    wait_for(tmp_path / "log", "cycle 2", killed)
    killed.kill()
    ended(killed)
    (tmp_path / "waits").unlink()
    status, said, complained = ended(start(project, "tiny", trials=7))
    assert status == 0, complained
    study = study_of(project, "tiny")
    interrupted, *others = study.trials
    assert interrupted.state.name == "FAIL" and len(others) == 7
    assert others[0].params == interrupted.params  # tried again, its first cycle from DVC's cache
    log = (tmp_path / "log").read_text()
    assert log.count(f"cycle 1 {interrupted.params[RATE]}") == 1
    assert len({one.params[RATE] for one in study.trials}) == 7  # a start draws no value a second time

    above, below = runs_below("tiny")
    assert above.info.status == "FINISHED" and len(below) == 8
    assert below["0"].info.status == "KILLED"
    for one in others:
        run, first = below[str(one.number)], 100 * one.params[RATE]
        assert run.info.status == "FINISHED" and one.user_attrs["run"] == run.info.run_id
        assert float(run.data.params["ppo.learning_rate"]) == one.params[RATE]
        assert one.intermediate_values == {1: first}
        if one.state.name == "COMPLETE":
            assert one.value == pytest.approx(2 * first) and one.params[KL] < 3.5
            assert run.data.metrics["eval/gold"] == 0.5 and f"{one.value:.3f}" in said
        else:
            assert one.state.name == "PRUNED"
            left_early = f"cycle 2 {one.params[RATE]} " not in log
            assert left_early == (run.data.tags.get("trial_state") == "PRUNED")
            assert left_early or one.params[KL] >= 3.5
    table = above.data.tags["mlflow.note.content"]
    assert table.count("\n| [") == 8 and "ppo.target_kl_nats_per_sequence" in table.splitlines()[0]


def test_a_trial_that_fails_is_told_as_such_and_the_next_begins(project: Tiny, tmp_path: Path) -> None:
    (tmp_path / "fails").touch()
    status, _, complained = ended(start(project, "bad", trials=2))
    assert status == 0 and "this one fails" in complained
    assert [one.state.name for one in study_of(project, "bad").trials] == ["FAIL", "FAIL"]
    above, below = runs_below("bad")
    assert {run.info.status for run in below.values()} == {"FAILED"} and len(below) == 2
    assert above.data.tags["mlflow.note.content"].count("| FAILED |") == 2

    project.git("commit", "--quiet", "--allow-empty", "-m", "another")
    status, _, complained = ended(start(project, "bad", trials=3))
    assert status == 2 and "of another commit" in complained
    assert len(study_of(project, "bad").trials) == 2
