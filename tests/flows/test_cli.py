"""The command line: quick to answer, clear when it is used in the wrong place or with the wrong words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_project import REPOSITORY, run_command

HEAVY = {"torch", "transformers", "mlflow", "prefect", "dvc", "pandas", "numpy", "scipy", "rich", "pydantic"}
COMMANDS = (
    *(
        "compare",
        "data",
        "doctor",
        "evaluate",
        "experiments",
        "export",
        "label",
        "lineage",
        "params",
        "plan",
        "prepare",
    ),
    *("run", "seeds", "stages", "ui"),
)


def proximal(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The shipped params in a repository of their own, committed."""
    for file in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / file, tmp_path)
    shutil.copytree(REPOSITORY / "infra/accelerate", tmp_path / "infra/accelerate")
    run_command("git", "init", "--quiet", folder=tmp_path)
    run_command("git", "add", "--all", folder=tmp_path)
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    run_command("git", *identity, "commit", "--quiet", "--message", "state", folder=tmp_path)
    return tmp_path


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, flows.cli\n"
        "try: flows.cli.commands(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', sorted({HEAVY!r} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"}
    ).stdout
    assert shown.splitlines()[-1] == "HEAVY []"
    for command in COMMANDS:
        assert f"\n  {command} " in shown
    assert "..." not in shown.partition("Commands:")[2]  # nothing is cut at 80 columns
    for status in ("0    done", "1    a fault of ours", "2    yours", "130  interrupted"):
        assert f"\n    {status}" in shown


def test_the_version_names_the_commit_of_the_checkout(tmp_path: Path) -> None:
    done = proximal("--version", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("proximal 0.1.0")
    if (REPOSITORY / ".git").exists():
        commit = run_command("git", "rev-parse", "--short", "HEAD", folder=REPOSITORY)
        assert done.stdout.startswith(f"proximal 0.1.0, commit {commit}")


def test_outside_of_a_project(tmp_path: Path) -> None:
    for command in (["run"], ["compare"], ["seeds"], ["ui"], ["params"], ["evaluate", "."], ["lineage", "a@b"]):
        done = proximal(*command, folder=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: this folder is in no project\n  where:      {tmp_path}\n")
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["rnu"], ["run", "--sett", "seed=1"], ["params", "--schema", "seed"]])
def test_a_command_line_that_says_nothing_is_the_users(project: Path, arguments: list[str]) -> None:
    done = proximal(*arguments, folder=project)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ") and "Traceback" not in done.stderr


def test_what_the_processes_would_not_obey_is_refused_before_anything_starts(project: Path) -> None:
    config = project / "infra/accelerate/cpu_auto.yaml"
    config.write_text(config.read_text().replace('"NO"', "MEGATRON_LM"))
    before = sorted(project.rglob("*"))
    done = proximal("run", folder=project)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the Accelerate config asks for what is not done here")
    assert "cpu_auto.yaml: distributed_type" in done.stderr and "MEGATRON_LM" in done.stderr
    assert sorted(project.rglob("*")) == before


def test_a_folder_without_git_is_named_first(project: Path) -> None:
    shutil.rmtree(project / ".git")
    before = sorted(project.rglob("*"))
    done = proximal("prepare", folder=project, GIT_CEILING_DIRECTORIES=str(project.parent))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: this folder is no git repository\n  where:      {project}\n")
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["seed"], "found:      seed\n"),
        (["seed=[1"], "found:      seed=[1\n"),
        (["sead=2"], "where:      params.yaml with sead=2: sead\n"),
        (["sead=2"], "did you mean seed?\n"),
        (["policy_gradient.learnin_rate=1"], "did you mean policy_gradient.learning_rate?\n"),
        (["ppo.lr=1e-4"], "found:      ppo.lr\n"),
        (["sed.epochs=1"], "did you mean sft.epochs?\n"),
        (["seed=abc"], "expected:   a valid integer\n  found:      'abc'\n"),
        (["sft.epochs=-1"], "where:      params.yaml with sft.epochs=-1: sft.epochs\n"),
        (["seed=1", "seed = 2"], "where:      --set seed\n  expected:   one value\n"),
        (["compute.accelerate_config=absent.yaml"], "absent.yaml\n"),
    ],
)
def test_what_a_run_is_to_change_is_checked_before_anything_starts(
    project: Path, changes: list[str], named: str
) -> None:
    before = sorted(project.rglob("*"))
    done = proximal("run", *(part for change in changes for part in ("--set", change)), folder=project)
    assert done.returncode == 2 and named in done.stderr
    assert "Traceback" not in done.stderr and "starting" not in done.stderr
    assert sorted(project.rglob("*")) == before


def test_blanks_around_a_change_mean_nothing(project: Path) -> None:
    """It is sound, so that what comes next is what a clone would lack."""
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# changed\n")
    done = proximal("run", "--set", " policy_gradient.learning_rate = 1e-4 ", folder=project)
    assert done.returncode == 2
    assert "uses the last commit" in done.stderr and "where:      params.yaml\n" in done.stderr


def test_methods_and_seeds_that_no_run_has_are_refused_before_anything_starts(project: Path) -> None:
    run_command(sys.executable, "-m", "dvc", "init", "--quiet", folder=project)
    (project / "data").mkdir()
    (project / "compare").mkdir()
    shutil.copy(REPOSITORY / "compare/dvc.yaml", project / "compare")
    done = proximal("compare", "--method", "pqo", "--seed", "1", folder=project)
    assert done.returncode == 2
    assert "error: no such run\n" in done.stderr and "found:      pqo-1\n" in done.stderr
    assert not (project / ".prefect").exists()


def test_a_rubric_in_the_root_is_found_from_below(project: Path) -> None:
    """As a stage finds it; it is sound, so that what comes next is what a clone would lack."""
    (project / "mine.py").write_text("def score(prompt, response):\n    return {'gold': 1.0}\n")
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# changed\n")
    below = project / "infra"
    for module, word in (("mine", "uses the last commit"), ("nobodys", "the rubric cannot be used")):
        changes = (f"data.rubric={module}:score", f"data.rubric_files={module}.py")
        done = proximal("run", *(part for change in changes for part in ("--set", change)), folder=below)
        assert done.returncode == 2 and word in done.stderr
