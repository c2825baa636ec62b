"""The commands: the table, the files, and one message with exit status 2 for whatever is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.worlds.randomwalks.__main__ import main
from components.worlds.randomwalks.graph import make_graph
from components.worlds.randomwalks.oracle import behaviour_rewards, best_of_n, optimum


def run(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["randomwalks", *arguments])
        main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_table_holds_the_oracle(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("oracle", "--seed", "1002", "--beta", "0.2", "--n", "2", "--n", "16") == 0
    printed = capsys.readouterr().out
    distribution = behaviour_rewards(make_graph(1002))
    best, sixteen = optimum(distribution, 0.2), best_of_n(distribution, 16)
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert "E[r] KL log n - (n-1)/n E[r] - 0.2 KL" in rows
    assert f"best of 16 {sixteen.reward:.4f} {sixteen.kl:.4f} 1.8351 {sixteen.objective(0.2):.4f}" in rows
    assert f"optimum {best.reward:.4f} {best.kl:.4f} {best.objective(0.2):.4f}" in rows
    assert "best of 4" not in printed
    assert "starts no walk" not in printed


def test_a_graph_whose_goal_is_out_of_reach_is_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("oracle", "--seed", "1001", "--beta", "0.1") == 0
    printed = capsys.readouterr().out
    assert "From 20 of the 20 starts no walk is worth more than 0." in printed
    assert "-0.0000" not in printed


def test_generate_writes_the_same_bytes_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["comparisons.jsonl", "demonstrations.jsonl", "prompts.jsonl"]
    for folder in ("one", "other"):
        small = ("--walks", "30", "--comparisons", "40")
        assert run("generate", "--seed", "1000", "--out", str(tmp_path / folder), *small) == 0
    assert "comparisons.jsonl: 40 rows" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("oracle --seed 1000", "Missing option '--beta'"),
        ("oracle --seed x --beta 0.1", "'--seed': 'x' is not a valid integer"),
        ("oracle --seed -1 --beta 0.1", "from 0 to 4294967295"),
        ("oracle --seed 1000 --beta 0", "a finite number above 0"),
        ("oracle --seed 1000 --beta nan", "a finite number above 0"),
        ("oracle --seed 1000 --beta 0.1 --n 0", "'--n': 0 is not in the range"),
        ("generate --seed 1000", "Missing option '--out'"),
        ("generate --seed 1001 --out {folder}/data", "nothing to learn"),
        ("generate --seed 1000 --out {folder}/data --walks 0", "--walks"),
        ("generate --seed 1000 --out {folder}/data --label-scale -1", "label scale"),
        ("generate --seed 1000 --out {folder}/file/data", "--out: expected a folder"),
        ("generate --seed 1000 --out {folder}/file", "--out: expected a folder"),
    ],
)
def test_a_bad_argument_is_one_message_and_nothing_is_written(
    arguments: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(*arguments.format(folder=tmp_path).split()) == 2
    assert complaint in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_world_needs_no_torch() -> None:
    code = "import sys, components.worlds.randomwalks.__main__ as m; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
