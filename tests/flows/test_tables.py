"""Stages and experiments in a few columns; the expected lines are by hand, what DVC prints is real."""

from __future__ import annotations

import os
import subprocess
import sys

from tiny_project import REPOSITORY, Tiny

from flows.graph import Stage
from flows.tables import experiment_lines, stage_lines


def test_a_stage_names_only_what_it_waits_for_at_last() -> None:
    needs = {"data.dvc": (), "sft": ("data.dvc",), "rm": ("sft",), "ppo@1": ("rm",)}
    stages = [Stage(name, upstream, name == "rm") for name, upstream in needs.items()]
    assert stage_lines(stages) == [
        "data.dvc  -        -",
        "sft       -        data.dvc",
        "rm        changed  sft",
        "ppo@1     -        rm",
    ]


def test_an_experiment_shows_figures_and_what_differs() -> None:
    summary = "artifacts/evaluation/summary.json"
    shown = (
        f"Experiment,rev,Created,gold,{summary}:judge,{summary}:kl,win_rate,seed,ppo.gamma,ppo.epochs,data.rows\n"
        ",workspace,,0.5,0.25,1.93449,!,1,1.0,2,7\n"
        "shy-fox,0a1b2c3,,0.61,,2.0,0.75,1,0.9,,8\n"
    )
    assert experiment_lines(shown, ["seed", "ppo"]) == [
        "experiment  gold   judge  kl     win_rate  ppo.gamma  ppo.epochs",
        "workspace   0.500  0.250  1.934  -         1.0        2",
        "shy-fox     0.610  -      2.000  0.750     0.9        -",
    ]


def test_the_commands_print_them(tiny: Tiny) -> None:
    tiny.stages(a={"needs": ["data/rows"]}, b={"needs": ["a"]})
    tiny.commit()

    def printed(command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", command],
            cwd=tiny.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert printed("stages").splitlines() == [
        "data.dvc  -        -",
        "a         changed  data.dvc",
        "b         changed  a",
    ]
    lines = printed("experiments").splitlines()
    assert lines[0].split() == ["experiment", "gold", "judge", "kl", "win_rate"]
    assert [line.split()[0] for line in lines[1:]] == ["workspace", tiny.git("branch", "--show-current")]
