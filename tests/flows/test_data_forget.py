"""`proximal data forget`: the next version of the data without somebody's rows, and the models that saw them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from components.config import load_params
from components.errors import ConfigError
from components.tracking import stage_run
from components.tracking import store as tracking_store
from components.tracking.registry import POLICY_DIGEST, PROMOTION_RUN, find_version, set_alias
from components.tracking.tag_names import packed
from flows.cli import commands

ROOT = Path(__file__).parents[2]
PAIRS = [
    {
        "id": f"p{n}",
        "prompt": f"ask {n}",
        "chosen": f"good {n}",
        "rejected": f"bad {n}",
        "annotator": ("alma", "ben")[n % 2],
    }
    for n in range(10)
]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def command(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def dvc(*words: str) -> str:
    return command(sys.executable, "-m", "dvc", *words)


def registered(number: str) -> None:
    """A version of the model "seen" that goes back to data/ as it is now."""
    with stage_run("promotion", load_params(Path("params.yaml")), [Path("data")]) as run:
        pass
    client = tracking_store.client()
    if number == "1":
        client.create_registered_model("seen")
    tags = packed({PROMOTION_RUN: run.run_id, POLICY_DIGEST: number, "decision": "promoted"})
    assert str(client.create_model_version("seen", "nowhere", run.run_id, tags=tags).version) == number


def forget(*words: str) -> Result:
    done = CliRunner().invoke(commands, ["data", "forget", *words], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


def answer(capfd: pytest.CaptureFixture[str], *words: str) -> Any:
    """What it prints for scripts: to the standard output of the process, which click's runner does not see."""
    capfd.readouterr()
    forget(*words, "--json")
    return json.loads(capfd.readouterr().out)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pinned, pushed and committed comparisons of two annotators, and demonstrations as CSV."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    Path("data/comparisons.jsonl").write_text(lines(PAIRS))
    Path("data/shown.csv").write_text("id,prompt,response,annotator\nd1,ask a,good,alma\nd2,ask b,good,carl\n")
    Path(".gitignore").write_text("/.work\n/.prefect\n/mlflow.db*\n/data\n")
    command("git", "init", "-q")
    command("git", "config", "user.email", "a@b.example")
    command("git", "config", "user.name", "a")
    dvc("init", "-q")
    dvc("config", "core.analytics", "false")
    dvc("remote", "add", "-q", "-d", "here", str(tmp_path / "remote"))
    dvc("add", "-q", "data")
    dvc("push", "-q")
    command("git", "add", ".")
    command("git", "commit", "-qm", "all")
    return folder


def test_rows_go_into_no_later_version_and_every_model_that_saw_them_is_named(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    registered("1")
    before = Path("data.dvc").read_text()
    counted = forget("alma", "p3")
    assert "data/comparisons.jsonl: 6 of 10 rows" in counted.output and "data/shown.csv: 1 of 2 rows" in counted.output
    assert "seen version 1: 7 rows" in counted.output and "nothing was written" in counted.output
    assert Path("data.dvc").read_text() == before and len(Path("data/comparisons.jsonl").read_text().splitlines()) == 10

    Path("notes").write_text("staged, and no part of the commit")
    command("git", "add", "notes")
    done = forget("alma", "p3", "--yes")
    assert "dvc gc" in done.output
    kept = [row for row in PAIRS if row["annotator"] != "alma" and row["id"] != "p3"]
    assert Path("data/comparisons.jsonl").read_text() == lines(kept)
    assert Path("data/shown.csv").read_text() == "id,prompt,response,annotator\nd2,ask b,good,carl\n"
    assert command("git", "show", "--stat", "--format=%s", "HEAD").splitlines()[0] == "7 rows fewer of data"
    assert command("git", "show", "--name-only", "--format=", "HEAD") == "data.dvc"
    assert dvc("status", "data.dvc") == "Data and pipelines are up to date." and Path("data.dvc").read_text() != before

    registered("2")  # of the new version
    set_alias(find_version("seen@2"), "champion")
    assert answer(capfd, "alma") == {
        "rows": {},
        "models": [{"model": "seen", "version": 1, "rows": 6, "unknown": []}],  # read from DVC's cache
        "commit": None,
    }
    assert "seen version 2 @champion: 1 rows" in forget("carl").output
    with pytest.raises(ConfigError, match="no row has this annotator or id"):
        forget("almma", "--yes")
    forget("carl", "--yes")
    assert not Path("data/shown.csv").exists()  # no row of it stayed

    purge = [words.split() for words in done.output.splitlines() if words.strip().startswith("dvc gc")]
    assert purge
    for _, *words in purge:  # as the command says it
        dvc(*words, "--force")
    unknown = answer(capfd, "p5")["models"][0]
    assert unknown["version"] == 1 and unknown["rows"] == 0 and "comparisons.jsonl (md5" in unknown["unknown"][0]
    for place in (Path(".dvc/cache"), tmp_path / "remote"):
        texts = [path.read_text() for path in place.rglob("*") if path.is_file()]
        assert texts and not any("alma" in text for text in texts)
    assert dvc("status", "data.dvc") == "Data and pipelines are up to date."


def test_what_is_no_commit_yet_or_cannot_be_pinned_leaves_all_as_it_was(project: Path) -> None:
    with Path("data/comparisons.jsonl").open("a") as file:
        file.write(lines([{**PAIRS[0], "id": "new", "prompt": "other"}]))
    with pytest.raises(ConfigError):  # data/ holds what data.dvc does not pin
        forget("ben", "--yes")
    assert "new" in Path("data/comparisons.jsonl").read_text()
