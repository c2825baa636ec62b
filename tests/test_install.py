"""`make` installs with a Python that fits, says what it does, goes on after an interruption, or says what to mend."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# A package without dependencies, so that pip needs no network; its first build is interrupted as by Ctrl-C.
BACKEND = """
import os, signal, time, zipfile
from pathlib import Path

def build_editable(folder, config_settings=None, metadata_directory=None):
    if not Path("was_interrupted").exists():
        Path("was_interrupted").touch()
        os.killpg(0, signal.SIGINT)
        time.sleep(60)
    with zipfile.ZipFile(Path(folder) / "small-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: small\\nVersion: 1.0\\n")
        wheel.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("small-1.0.dist-info/RECORD", "")
    return "small-1.0-py3-none-any.whl"
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "small"
version = "1.0"
classifiers = [
  "Programming Language :: Python :: {python}",
]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A committed project with the shipped Makefile and nothing to install but itself."""
    (tmp_path / "infra").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "infra" / "make_venv.sh", tmp_path / "infra")
    (tmp_path / "constraints.txt").touch()
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "pyproject.toml").write_text(PROJECT.format(python=PYTHON))
    for command in (
        ("init", "--quiet"),
        ("add", "--all"),
        ("-c", "user.name=Test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", "start"),
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def make(project: Path, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHON" and not name.startswith("MAKE")
    }
    return subprocess.run(
        ["make", ".venv/.installed", *arguments],
        cwd=project,
        env=environment | {"PIP_NO_INDEX": "1", "GIT_CEILING_DIRECTORIES": str(project.parent)},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,  # what interrupts it does not reach these tests
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )


def script(file: Path, line: str) -> Path:
    """A program that stands for a Python which cannot be had here."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)
    return file


def test_an_interrupted_install_is_taken_up_again(project: Path) -> None:
    interrupted = make(project, f"PYTHON={sys.executable}")
    assert interrupted.returncode != 0 and (project / "was_interrupted").exists()
    assert not (project / ".venv/.installed").exists()

    again = make(project)
    assert again.returncode == 0, again.stderr
    assert "installing into .venv: about" in again.stderr and "GB" in again.stderr
    assert again.stdout == ""  # without a terminal pip is quiet
    version = 'from importlib.metadata import version; print(version("small"))'
    installed = subprocess.run(
        [project / ".venv/bin/python", "-c", version], capture_output=True, text=True, check=True
    )
    assert installed.stdout == "1.0\n"
    assert "installing" not in make(project).stderr


def test_pip_shows_how_far_it_is_at_a_terminal(project: Path) -> None:
    (project / "was_interrupted").touch()
    terminal, other_end = pty.openpty()
    try:
        shown = make(project, f"PYTHON={sys.executable}", stderr=other_end)
    finally:
        os.close(other_end)
        os.close(terminal)
    assert shown.returncode == 0
    assert "Successfully installed small-1.0" in shown.stdout


def test_a_venv_without_pip_is_completed(project: Path) -> None:
    """So it is left where making it was interrupted."""
    (project / "was_interrupted").touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    assert make(project).returncode == 0
    assert (project / ".venv/bin/pip").exists()


def test_a_folder_without_a_commit_is_refused_first(project: Path) -> None:
    shutil.rmtree(project / ".git")
    refused = make(project)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: this folder is no git repository with a commit\n")
    assert "git clone" in refused.stderr and "git init" in refused.stderr
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    assert make(project).stderr.startswith("error: this folder is no git repository with a commit\n")
    assert not (project / ".venv").exists()


def test_a_python_that_does_not_fit_is_refused(project: Path) -> None:
    (project / "pyproject.toml").write_text(PROJECT.format(python="3.99"))
    for arguments, words in (
        ([], "error: no Python that fits is on the path\n  expected:   Python 3.99\n"),
        ([f"PYTHON={sys.executable}"], f"which is Python {PYTHON}\n"),
        (["PYTHON=absent"], "found:      absent\n"),
    ):
        refused = make(project, *arguments)
        assert refused.returncode == 2 and words in refused.stderr and "make PYTHON=..." in refused.stderr
    assert not (project / ".venv").exists()


def test_a_venv_of_another_python_is_refused(project: Path) -> None:
    there = script(project / ".venv/bin/python", f"echo {PYTHON}")
    script(project / ".venv/bin/pip", "exit 1")
    other = script(project / "python3.99", "echo 3.99")
    both = PROJECT.replace("\n]", '\n  "Programming Language :: Python :: 3.99",\n]')
    (project / "pyproject.toml").write_text(both.format(python=PYTHON))
    refused = make(project, f"PYTHON={other}")
    assert refused.returncode == 2
    assert f"expected:   Python 3.99, of {other}\n  found:      Python {PYTHON}\n" in refused.stderr
    assert "rm -r .venv" in refused.stderr

    (project / "pyproject.toml").write_text(PROJECT.format(python="3.99"))
    assert make(project).stderr.startswith("error: the Python of .venv does not fit\n")
    there.unlink()
    there.symlink_to("absent")
    assert make(project).stderr.startswith("error: the Python of .venv does not start\n")


def test_the_places_that_name_pythons_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    begin = "Programming Language :: Python :: "
    pythons = [name.removeprefix(begin) for name in project["classifiers"] if name.startswith(begin)]
    first, last = (int(python.removeprefix("3.")) for python in (min(pythons), max(pythons)))
    assert project["requires-python"] == f">=3.{first},<3.{last + 1}"
    workflow = YAML(typ="safe").load(ROOT / ".github/workflows/test.yml")
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == pythons
