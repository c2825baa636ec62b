"""`proximal data`: a person's files come in, and none is lost. Real DVC in a small repository, real files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from components.errors import ConfigError, DataError
from components.interface.hub import is_name
from components.tracking.dvc_files import pinned_data
from flows.cli import commands
from flows.preconditions import require_committed

ROOT = Path(__file__).parents[2]
PAIRS = [{"prompt": f"ask {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(60)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with pinned data, as a fresh clone of it is: the data is in DVC's cache alone."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "data" / "shipped.jsonl").write_text(lines(PAIRS))
    for command in (
        "git init -q",
        "git config user.email a@b.example",
        "git config user.name a",
        f"{sys.executable} -m dvc init -q",
        f"{sys.executable} -m dvc add -q data",
        "git add .",
        "git commit -qm all",
    ):
        subprocess.run(command.split(), cwd=folder, check=True)
    shutil.rmtree(folder / "data")
    monkeypatch.chdir(folder)
    return folder


def proximal(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["data", *arguments], catch_exceptions=True)


def refusal(*arguments: str) -> DataError | ConfigError:
    error = proximal(*arguments).exception
    assert isinstance(error, DataError | ConfigError)
    return error


def in_data() -> dict[str, str]:
    return {path.name: path.read_text() for path in Path("data").iterdir()}


def test_pinned_data_is_fetched_into_a_fresh_clone(project: Path) -> None:
    (project / "data").mkdir()  # an empty folder is none
    result = proximal("fetch")
    assert result.exit_code == 0, result.output
    assert in_data() == {"shipped.jsonl": lines(PAIRS)}
    assert proximal("fetch").output == ""


def test_a_persons_files_stay_as_they_are(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data" / "mine.jsonl").write_text(lines(PAIRS[:5]))
    result = proximal("fetch")
    assert result.exit_code == 0, result.output
    assert "they stay, and a run reads and pins them" in result.output
    assert in_data() == {"mine.jsonl": lines(PAIRS[:5])}


def test_a_run_in_a_clone_would_not_have_them_and_is_refused(project: Path) -> None:
    require_committed(project)
    (project / "data").mkdir()
    (project / "data" / "mine.jsonl").write_text(lines(PAIRS[:5]))
    with pytest.raises(ConfigError, match="data/ holds other"):
        require_committed(project)


def test_a_version_that_was_committed_makes_way_for_the_pinned_one(project: Path) -> None:
    proximal("fetch")
    before = pinned_data(project)
    (project / "data" / "shipped.jsonl").write_text(lines(PAIRS[:9]))
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], check=True)
    subprocess.run(["git", "commit", "-qam", "fewer"], check=True)
    subprocess.run(["git", "revert", "--no-edit", "HEAD"], check=True, capture_output=True)  # as `git pull` may
    assert proximal("fetch").exit_code == 0
    assert pinned_data(project) == before and in_data() == {"shipped.jsonl": lines(PAIRS)}


def test_files_come_in_as_rows_of_ours_and_are_pinned(project: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("q,yes,no,n\n" + "".join(f"ask {n},good {n},bad {n},{n}\n" for n in range(60)))
    (tmp_path / "chat.json").write_text(
        json.dumps([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}])
    )
    maps = [part for pair in ("prompt=q", "chosen=yes", "rejected=no") for part in ("--column", pair)]
    result = proximal("import", str(tmp_path / "mine.csv"), str(tmp_path / "chat.json"), *maps, "--json")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in in_data()["mine.jsonl"].splitlines()]
    assert len(rows) == 60
    assert rows[3] | {"id": ""} == {"id": "", **PAIRS[3], "source": "mine", "n": "3"}
    assert len(in_data()["chat.jsonl"].splitlines()) == 1
    assert subprocess.run(["git", "diff", "--quiet", "data.dvc"], check=False).returncode == 1
    assert subprocess.run([sys.executable, "-m", "dvc", "status", "data.dvc"], capture_output=True, text=True).stdout


def test_what_was_imported_reads_again_the_same(project: Path, tmp_path: Path) -> None:
    dialogue = "\n\nHuman: a{0}\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    pairs = [{"chosen": dialogue.format(n) + " good", "rejected": dialogue.format(n) + " bad"} for n in range(3)]
    (tmp_path / "hh.jsonl").write_text(lines(pairs))
    assert proximal("import", str(tmp_path / "hh.jsonl")).exit_code == 0
    written = in_data()["hh.jsonl"]
    assert json.loads(written.splitlines()[0])["messages"][2] == {"role": "user", "content": "c"}
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "hh.jsonl").write_text(written)
    assert proximal("import", str(tmp_path / "again"), "--replace").exit_code == 0
    assert in_data()["hh.jsonl"] == written


def test_a_file_that_is_there_is_replaced_only_when_told(project: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(lines(PAIRS))
    assert proximal("import", str(tmp_path / "mine.jsonl")).exit_code == 0
    (tmp_path / "mine.jsonl").write_text(lines(PAIRS[:7]))
    before = in_data()
    assert "a file of this name is there" in str(refusal("import", str(tmp_path / "mine.jsonl")))
    assert in_data() == before
    assert proximal("import", str(tmp_path / "mine.jsonl"), "--replace").exit_code == 0
    assert len(in_data()["mine.jsonl"].splitlines()) == 7


def test_what_validation_would_refuse_is_not_written(project: Path, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text(lines(PAIRS))
    (tmp_path / "bad.jsonl").write_text(lines([pair | {"rejected": pair["chosen"]} for pair in PAIRS]))
    (tmp_path / "empty.jsonl").write_text("")
    for bad, words in {"bad": "too many rows", "empty": "an empty file", "absent": "there is no such file"}.items():
        assert words in str(refusal("import", str(tmp_path / "good.jsonl"), str(tmp_path / f"{bad}.jsonl")))
    assert "names nothing" in str(refusal("import", str(tmp_path / "good.jsonl"), "--column", "chosen=better"))
    assert "no column map" in str(refusal("import", str(tmp_path / "good.jsonl"), "--column", "chosen"))
    assert "of the hub" in str(refusal("import", str(tmp_path / "good.jsonl"), "--split", "train"))
    assert not (project / "data").exists()


def test_a_data_set_of_the_hub_needs_a_revision(project: Path) -> None:
    assert "has no revision" in str(refusal("import", "owner/name"))
    assert [is_name(text) for text in ("a/b", "a/b:main", "a", "data/x.jsonl", "./a/b")] == [True, True] + [False] * 3
