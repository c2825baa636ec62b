"""The command line: quick to answer, clear when it is used in the wrong place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tiny_project import REPOSITORY, run_command

HEAVY = {"torch", "transformers", "mlflow", "prefect", "dvc", "pandas", "numpy", "scipy", "rich"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, flows.cli\n"
        "try: flows.cli.commands(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', sorted({HEAVY!r} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "HEAVY []"
    for command in ("run", "compare", "lineage", "seeds", "ui", "prepare"):
        assert f"\n  {command} " in shown


def test_outside_of_a_repository(tmp_path: Path) -> None:
    for command in (["run"], ["compare"], ["seeds"], ["ui"], ["lineage", "policy@champion"]):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: the params file is missing\n  where:      params.yaml\n")
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_the_processes_would_not_obey_is_refused_before_anything_starts(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copytree(REPOSITORY / "infra/accelerate", tmp_path / "infra/accelerate")
    run_command("git", "init", "--quiet", folder=tmp_path)
    config = tmp_path / "infra/accelerate/cpu_auto.yaml"
    config.write_text(config.read_text().replace('"NO"', "DEEPSPEED"))
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the Accelerate config asks for what is not done here")
    assert "cpu_auto.yaml: distributed_type" in done.stderr and "DEEPSPEED" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_git_is_named_first(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "prepare"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: this folder is no git repository\n  where:      {tmp_path}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_what_a_run_is_to_change_is_checked_before_anything_starts(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copytree(REPOSITORY / "infra/accelerate", tmp_path / "infra/accelerate")
    run_command("git", "init", "--quiet", folder=tmp_path)
    run_command("git", "add", "params.yaml", folder=tmp_path)
    for changes, named in (
        ("seed", "found:      seed\n"),
        ("sead=2", "where:      params.yaml: sead\n"),
        ("sft.epochs=0", "where:      params.yaml with sft.epochs=0: sft.epochs\n"),
        ("compute.accelerate_config=absent.yaml", "absent.yaml\n"),
        (" seed = 2", "where:      params.yaml\n"),  # sound, and not committed
    ):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "run", "--set", changes],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and named in done.stderr
        assert "Traceback" not in done.stderr
