"""What the Tab key offers, asked as click's own shell scripts ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem, ShellComplete
from tiny_project import REPOSITORY

from components.config import METHODS
from flows.cli import commands


def offered(*words: str) -> list[CompletionItem]:
    *before, incomplete = words
    return ShellComplete(commands, {}, "proximal", "_PROXIMAL_COMPLETE").get_completions(before, incomplete)


def values(*words: str) -> list[str]:
    return [item.value for item in offered(*words)]


def test_keys_methods_and_commands() -> None:
    assert values("ev") == ["evaluate"]
    assert values("run", "--set", "sft.ep") == ["sft.epochs"]
    assert values("params", "language_model.scratch.l") == ["language_model.scratch.layers"]
    assert values("compare", "--method", "") == list(METHODS)
    assert values("compare", "--method", "ppo", "--method", "r") == ["rloo"]


def test_models_are_those_that_params_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert values("lineage", "") == []  # in no project
    shutil.copy(REPOSITORY / "dvc.yaml", tmp_path)
    text = (REPOSITORY / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("registered_model: policy", "registered_model: helper"))
    assert values("lineage", "") == ["helper@champion", "helper@candidate"]
    assert values("evaluate", "helper@ca") == ["helper@candidate"]
    (folder,) = offered("evaluate", "artifacts/s")
    assert (folder.type, folder.value) == ("dir", "artifacts/s")  # the shell knows folders


def test_the_line_that_help_names_gives_bash_a_script() -> None:
    command = "import sys; sys.argv = ['proximal']; from flows.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "_PROXIMAL_COMPLETE": "bash_source"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "complete -o nosort -F _proximal_completion proximal" in done.stdout
