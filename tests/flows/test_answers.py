"""Answers for scripts, from anywhere in a project: JSON alone on standard output, paths that can be used from there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tiny_project import REPOSITORY, Tiny

from components.artifacts import write_json
from components.config import load_params

SIDE = {name: {"mean": 0.5, "low": 0.4, "high": 0.6} for name in ("gold", "judge", "kl")}
EVALUATION = {"sft": SIDE, "candidate": SIDE, "difference": SIDE, "win_rate": SIDE["gold"]}


def answer(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_run_from_below_the_root(tiny: Tiny, prefect_api: str) -> None:
    """Its data is fetched where it is absent."""
    tiny.stages(a={"needs": ["data/rows"], "prints": ["a stage talks\n"]})
    tiny.commit()
    write_json(tiny.folder / "artifacts/evaluation/metrics.json", EVALUATION)
    (tiny.folder / "artifacts/evaluation/report.html").touch()
    shutil.rmtree(tiny.folder / "data")
    below = tiny.folder / "below"
    done = answer(
        "run", "--no-promotion", "--json", "--figures", "figures.json", folder=below, PREFECT_API_URL=prefect_api
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["stages"] == {"data.dvc": "unchanged", "a": "ran"}
    assert told["evaluation"] == EVALUATION and told["cost"] == {} and told["verdict"] is None
    assert told["report"] == "../artifacts/evaluation/report.html" and (below / told["report"]).exists()
    assert len(told["run_id"]) == 32
    assert json.loads((below / "figures.json").read_text()) == {"evaluation": EVALUATION, "cost": {}}
    assert "a stage talks" in done.stderr and "data is absent: fetching what data.dvc pins" in done.stderr
    assert (tiny.folder / "data" / "rows").read_text() == "1\n" and not (below / ".prefect").exists()


def test_data_that_nobody_has_is_told(tiny: Tiny) -> None:
    tiny.stages(a={"needs": ["data/rows"]})
    tiny.commit()
    shutil.rmtree(tiny.folder / "data")
    shutil.rmtree(tiny.folder / ".dvc/cache")
    done = answer("run", "--no-promotion", folder=tiny.folder)
    assert done.returncode == 2
    assert "error: a command failed that the run needs" in done.stderr and "pull data.dvc" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_doctor_finds(tiny: Tiny) -> None:
    tiny.stages(a={})
    shutil.rmtree(tiny.folder / "data")
    done = answer("doctor", "--json", folder=tiny.folder / "below")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 2
    assert findings["data"]["state"] == "fault" and "dvc pull" in findings["data"]["do"]
    assert findings["params"]["state"] == findings["git"]["state"] == "ok"


def test_the_params_of_a_run(tiny: Tiny) -> None:
    tiny.stages(a={})
    below, shipped = tiny.folder / "below", load_params(REPOSITORY / "params.yaml")
    whole = answer("params", folder=below)
    assert YAML(typ="safe").load(whole.stdout) == shipped.values()
    assert json.loads(answer("params", "--json", folder=below).stdout) == shipped.values()
    # A key of a method that is not chosen, with what it has from policy_gradient.
    assert answer("params", "grpo.kl_coef", folder=below).stdout == f"{shipped.policy_gradient.kl_coef}\n"
    assert answer("params", "method", folder=below).stdout == "ppo\n"
    assert answer("params", "policy_gradient.dual_clip", folder=below).stdout == "null\n"
    absent = answer("params", "grpo.kl_cof", folder=below)
    assert absent.returncode == 2 and absent.stdout == ""
    assert "where:      ../params.yaml\n" in absent.stderr and "did you mean grpo.kl_coef?" in absent.stderr


def test_the_schema_that_is_printed_is_the_committed_one(tmp_path: Path) -> None:
    assert answer("params", "--schema", folder=tmp_path).stdout == (REPOSITORY / "infra/params.schema.json").read_text()


@pytest.mark.parametrize(
    ("does", "status", "words"),
    [
        ("pass", 0, ""),
        ("sys.exit(1)", 1, ""),
        ("raise RuntimeError('ours')", 1, "RuntimeError: ours"),
        ("raise ConfigError('yours')", 2, "error: yours"),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", 128 + signal.SIGINT, "interrupted"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM, ""),  # a shell says 143
    ],
)
def test_the_exit_statuses_that_help_names(does: str, status: int, words: str, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\nfrom components.errors import ConfigError\nfrom flows import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"@cli.commands.command()\ndef does():\n    {does}\nsys.argv = ['proximal', 'does']\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PROXIMAL_STATUS_FILE": str(tmp_path / "status")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status and words in done.stderr
    # Who started it for a comparison is told the same; nothing where it was killed.
    assert (tmp_path / "status").read_text() == (str(status) if status >= 0 else "")
