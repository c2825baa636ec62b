"""What `proximal doctor` finds, in folders that lack one thing each."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.interface.doctor import Finding, examine, print_findings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with pinned data and a commit."""
    folder = tmp_path_factory.mktemp("doctor") / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "prompts.jsonl").write_text("{}\n")
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "infra" / "accelerate", folder / "infra" / "accelerate")
    run = ("git", "-c", "user.name=Test", "-c", "user.email=test@localhost")
    commands: list[tuple[str, ...]] = [
        ("git", "init", "--quiet"),
        (sys.executable, "-m", "dvc", "init", "--quiet"),
        (sys.executable, "-m", "dvc", "add", "--quiet", "data"),
        ("git", "add", "--all"),
        (*run, "commit", "--quiet", "--message", "start"),
    ]
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own copy, beside which no server is named."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return Path(shutil.copytree(template, tmp_path / "project", symlinks=True))


def found(project: Path, what: str) -> Finding:
    (finding,) = (finding for finding in examine(project) if finding.what == what)
    return finding


def test_a_sound_project_is_fit(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_findings(project)
    printed = capsys.readouterr().out
    assert "fault" not in printed
    assert "commit " in printed and "mixed_precision" in printed and "cores" in printed


def test_what_stands_in_the_way_is_a_fault_and_says_what_mends_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # nobody listens on the port `discard`
    shutil.rmtree(project / "data")
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("\nseed:", "\nsede:"))
    for what, words in {"data": "dvc pull", "Prefect": "PREFECT_API_URL", "params": "mend"}.items():
        finding = found(project, what)
        assert finding.state == "fault" and words in finding.do
    assert "did you mean seed?" in found(project, "params").found
    assert not print_findings(project)
    assert "dvc pull data.dvc" in capsys.readouterr().out


def test_data_that_changed_since_it_was_pinned_is_told(project: Path) -> None:
    assert found(project, "data").state == "ok"
    (project / "data" / "prompts.jsonl").write_text('{"prompt": "new"}\n')
    finding = found(project, "data")
    assert finding.state == "warning" and "dvc add data" in finding.do


def test_a_folder_without_git_and_one_without_a_commit_are_told_apart(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    shutil.rmtree(project / ".git")
    without = found(project, "git")
    assert without.state == "fault" and "git clone" in without.do and "git init" in without.do
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    assert found(project, "git") == ("git", "fault", "no commit here", "`git add --all`, `git commit --message start`")


def test_a_repository_around_the_folder_that_is_anothers_is_told(project: Path) -> None:
    (project / ".git").rename(project.parent / ".git")
    finding = found(project, "git")
    assert finding.state == "fault" and "params.yaml is not in commit" in finding.found
    assert "git init" in finding.do


def test_the_python_is_held_against_what_the_package_asks_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(project, "Python").state == "ok"
    monkeypatch.setattr("platform.python_version", lambda: "3.10.13")
    finding = found(project, "Python")
    assert finding.state == "fault" and ">=3.11" in finding.do and "make setup PYTHON=" in finding.do


def test_it_fits_into_80_columns(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert not print_findings(project)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.startswith(("ok      ", "warning ", "fault   ", " " * 20)) for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
@pytest.mark.parametrize(("config", "needs"), [("gpu", "a GPU"), ("gpu_fsdp2_eight", "8 GPUs on this machine")])
def test_gpus_that_params_ask_for_and_are_not_here(project: Path, config: str, needs: str) -> None:
    params = project / "params.yaml"
    params.write_text(
        re.sub(r"infra/accelerate/\w+.yaml", f"infra/accelerate/{config}.yaml", params.read_text(), count=1)
    )
    assert found(project, "params").state == "ok"
    finding = found(project, "GPU")
    assert finding.state == "fault" and needs in finding.found and "none that torch" in finding.found
    assert "infra/accelerate/cpu_auto.yaml" in finding.do
