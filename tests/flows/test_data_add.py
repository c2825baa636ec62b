"""`proximal data add`: more rows for the pinned data, once each, as a commit of data.dvc alone, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prefect.settings import PREFECT_API_URL, temporary_settings

from components.errors import ConfigError, DataError, EnvironmentFault, ProximalError
from components.interface.label.labels import Labels, Verdict
from components.interface.label.pairs import Answer, Policy, pair_of
from flows.cli import commands

ROOT = Path(__file__).parents[2]
PAIRS = [{"id": f"p{n}", "prompt": f"ask {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(90)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def dvc(*arguments: str) -> str:
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "project"
    (folder / "data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "data" / "comparisons.jsonl").write_text(lines(PAIRS[:60]))
    (folder / ".gitignore").write_text("/.work\n/.prefect\n/mlflow.db*\n/data\n")
    for command in (
        "git init -q",
        "git config user.email a@b.example",
        "git config user.name a",
        f"{sys.executable} -m dvc init -q",
        f"{sys.executable} -m dvc config core.analytics false",
        f"{sys.executable} -m dvc remote add -q -d here remote",
        f"{sys.executable} -m dvc add -q data",
        "git add .",
        "git commit -qm all",
    ):
        subprocess.run(command.split(), cwd=folder, check=True)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with pinned and committed comparisons, and a remote; no server is named."""
    folder = Path(shutil.copytree(made, tmp_path / "project"))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with temporary_settings(restore_defaults={PREFECT_API_URL}):  # a test before may have started Prefect's harness
        yield folder


def add(*arguments: str | Path) -> str:
    """What it prints."""
    done = CliRunner().invoke(commands, ["data", "add", *map(str, arguments)])
    assert done.exit_code == 0, done.exception
    return done.output


def cli(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """As a process of its own."""
    command = [sys.executable, "-m", "flows.cli", "data", "add", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def refusal(*arguments: str | Path) -> ProximalError:
    before = everything()
    error = CliRunner().invoke(commands, ["data", "add", *map(str, arguments)]).exception
    assert isinstance(error, ProximalError), error
    assert everything() == before
    return error


def everything() -> dict[str, str]:
    files = {path.name: path.read_text() for path in Path("data").rglob("*") if path.is_file()}
    return files | {
        "data.dvc": Path("data.dvc").read_text(),
        "HEAD": git("rev-parse", "HEAD"),
        "index": git("diff", "--cached"),
    }


def test_rows_come_in_once_and_are_a_commit_of_their_own(project: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text(lines([row | {"id": f"again{row['id']}"} for row in PAIRS[55:65]]))  # five of them are there
    (project / "params.yaml").open("a").write("# mine\n")
    git("add", "params.yaml")
    shown = add(more)
    assert "5 comparisons" in shown and "5 more are in data/ already" in shown and "nobody was told" in shown
    assert "pushed to remote, in this repository" in shown
    assert [json.loads(row)["prompt"] for row in Path("data/more.jsonl").read_text().splitlines()] == [
        f"ask {n}" for n in range(60, 65)
    ]
    assert git("show", "--name-only", "--format=%s").splitlines() == ["5 more rows of data: more.jsonl", "", "data.dvc"]
    assert git("diff", "--cached", "--name-only") == "params.yaml"  # what was staged stays so
    assert "up to date" in dvc("status", "data.dvc") and "in sync" in dvc("status", "--cloud", "data.dvc")

    before = everything()
    assert "nothing is new: no commit, no event" in add(more)
    assert everything() == before and not any(Path(".work").glob("data-*"))

    told = json.loads(cli(more, "--json").stdout)
    assert (told["rows"], told["commit"], told["added"][0]["known"]) == (0, None, 10)


def test_rows_go_to_the_end_of_the_file_that_is_named(project: Path, tmp_path: Path) -> None:
    old = Path("data/comparisons.jsonl").read_text()
    batch = tmp_path / "batch.csv"
    batch.write_text("prompt,chosen,rejected,annotator\nask 1,good 1,bad 1,ann\nask 70,good 70,bad 70,ann\n")
    add(batch, "--to", "comparisons.jsonl")  # another annotator's label is another row
    new = Path("data/comparisons.jsonl").read_text()
    assert new.startswith(old)
    assert [json.loads(row)["prompt"] for row in new[len(old) :].splitlines()] == ["ask 1", "ask 70"]

    (tmp_path / "comparisons.jsonl").write_text(lines(PAIRS[60:66]))  # as a file of that name does by itself
    add(tmp_path / "comparisons.jsonl")
    assert len(Path("data/comparisons.jsonl").read_text().splitlines()) == 68 and len(everything()) == 4


def test_what_cannot_be_added_leaves_all_as_it_was(project: Path, tmp_path: Path) -> None:
    def file(name: str, rows: list[dict[str, Any]]) -> Path:
        (tmp_path / name).write_text(lines(rows))
        return tmp_path / name

    more = file("more.jsonl", PAIRS[60:70])
    assert "too many rows" in str(refusal(file("bad.jsonl", [row | {"rejected": row["chosen"]} for row in PAIRS])))
    assert "no such file" in str(refusal(more, tmp_path / "absent.jsonl"))
    assert "no file of data/" in str(refusal(more, "--to", "../rows.jsonl"))
    assert "ids of new rows" in str(refusal(file("two.jsonl", [PAIRS[70] | {"id": "p1"}]), "--to", "comparisons.jsonl"))
    asked = file("asked.jsonl", [{"prompt": f"ask {n}"} for n in range(5)])
    assert "has other rows" in str(refusal(asked, "--to", "comparisons.jsonl"))
    assert "rows of one kind" in str(refusal(more, asked, "--to", "both.jsonl"))

    hook = Path(".git/hooks/pre-commit")  # DVC has pinned and pushed by then
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    assert isinstance(fault := refusal(more), EnvironmentFault) and "not today" in str(fault)
    hook.unlink()

    Path("data/comparisons.jsonl").write_text(lines(PAIRS[:50]))
    assert "data/ holds other" in str(refusal(more))
    dvc("add", "-q", "data")
    assert isinstance(fault := refusal(more), ConfigError) and "would take that along" in str(fault)


def test_a_server_that_is_to_be_told_must_answer(project: Path, tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text(lines(PAIRS[60:70]))
    before = everything()
    done = cli(tmp_path / "more.jsonl", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 2 and "http://127.0.0.1:9/api" in done.stderr
    assert everything() == before


def test_data_that_is_not_pinned_is_not_added_to(project: Path, tmp_path: Path) -> None:
    Path("data.dvc").unlink()
    error = CliRunner().invoke(commands, ["data", "add", "data/comparisons.jsonl"]).exception
    assert isinstance(error, ConfigError | DataError) and "no data is pinned" in str(error)


def test_what_people_have_labelled_comes_in_once(project: Path) -> None:
    old, new = (Answer(Policy(name, name), f"{name} answer", 0.0, 0.0) for name in ("old", "new"))
    labels = Labels(project / "labels" / "labels.jsonl")
    verdicts: tuple[Verdict, ...] = ("A", "tie", "B", "skip")
    for number, verdict in enumerate(verdicts):
        labels.add(pair_of(f"Question {number}?", None, old, new), "Ann", verdict)
    labels.add(pair_of("Question 0?", None, old, new), "Bob", "A")
    assert "3 comparisons" in add("labels/labels.jsonl")
    labels.add(pair_of("Question 9?", None, old, new), "Ann", "B")
    assert "3 more are in data/ already" in add("labels/labels.jsonl")
    rows = [json.loads(line) for line in (project / "data" / "labels.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["annotator"]) for row in rows] == [
        ("Question 0?", "Ann"),
        ("Question 2?", "Ann"),
        ("Question 0?", "Bob"),
        ("Question 9?", "Ann"),
    ]
    assert all({row["chosen"], row["rejected"]} == {"old answer", "new answer"} for row in rows)

    # While somebody labels, the file may end within a line: whole lines alone come in, and the next time the rest.
    labels.add(pair_of("Question 10?", None, old, new), "Ann", "A")
    file = project / "labels" / "labels.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    before = everything()
    shown = add("labels/labels.jsonl")
    assert "4 more are in data/ already" in shown and "1 rows are not used: the file ends within the line" in shown
    assert everything() == before
    file.write_bytes(whole)
    assert "1 comparisons" in add("labels/labels.jsonl")
    assert Path("data/labels.jsonl").read_text().count("\n") == 5

    # What was labelled here comes back from other tools as what it is, so that it is not there twice.
    for form in ("label-studio", "argilla"):
        done = CliRunner().invoke(commands, ["data", "export", "labels/labels.jsonl", f"{form}.json", "--as", form])
        assert (done.exit_code, done.output) == (0, f"labels/labels.jsonl: 7 labels -> {form}.json\n")
        before = everything()
        assert "5 more are in data/ already" in add(f"{form}.json")
        assert everything() == before


def test_what_is_no_file_of_labels_is_not_exported(project: Path, tmp_path: Path) -> None:
    def refused(source: str, target: str) -> str:
        error = CliRunner().invoke(commands, ["data", "export", source, target, "--as", "argilla"]).exception
        assert isinstance(error, ProximalError), error
        return str(error)

    assert "these are no labels" in refused("data/comparisons.jsonl", "new.json")
    assert "there are no labels" in refused("absent.jsonl", "new.json")
    assert "a file of this name is there" in refused("data/comparisons.jsonl", "params.yaml")
    assert not Path("new.json").exists()
