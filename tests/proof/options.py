"""`python -m tests.proof.options`: every option of the policy-gradient methods on one small graph, beside the optimum.

A short SFT and short cycles, so that all of them take minutes. Nothing is claimed: the table shows what each option
does to E[r] - beta KL, as a share of what can be reached from the SFT policy as it came out.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from components.artifacts import read_json, write_json
from components.config import Method, load_params
from components.place import Place
from components.worlds.randomwalks.graph import make_graph
from components.worlds.randomwalks.oracle import behaviour_rewards
from tests.proof.__main__ import PRESET
from tests.proof.stages import Size, Tree, Trial, align, prepare, workspace

BETA = 0.3
SCORER = {"epochs": 1}
SHORT = {
    "iterations_per_cycle": 10,
    "learning_rate_decay_iterations": 10,
    "rollouts_per_iteration": 256,
    "minibatches": 2,
}
SIZE = Size(
    walks=4000,
    comparisons=400,
    sft_samples=100,
    samples=100,
    changes={
        "sft": {"epochs": 2},
        "reward_model": SCORER,
        "judge": SCORER,
        "policy_gradient": SHORT,
        "ppo": {"value_warmup_iterations": 2},
    },
)
GSPO = {"policy_loss": "gspo", "loss_aggregation": "sequence_mean", "clip_range_low": 0.05, "clip_range_high": 0.05}
CISPO = {"policy_loss": "cispo", "clip_range_low": None, "clip_range_high": 1.0}
DR_GRPO = {"advantage_scale": "none", "whiten_advantages": False, "loss_aggregation": "sum_over_limit"}
OPTIONS: tuple[tuple[Method, str, Tree], ...] = (
    ("ppo", "as the preset has it", {}),
    ("ppo", "value_gae_lambda 1", {"value_gae_lambda": 1.0}),
    ("ppo", "gspo", GSPO),
    ("ppo", "cispo", CISPO),
    ("ppo", "truncated left out", {"mask_truncated": True}),
    ("grpo", "as the preset has it", {}),
    ("grpo", "dr_grpo", DR_GRPO),
    ("grpo", "gspo", GSPO),
    ("grpo", "dynamic sampling", {"dynamic_sampling_rounds": 2}),
    ("rloo", "as the preset has it", {}),
    ("rloo", "cispo", CISPO),
    ("rloo", "dynamic sampling", {"dynamic_sampling_rounds": 2}),
)


@dataclass(frozen=True)
class OptionTrial(Trial):
    """A method with an option of its section."""

    option: str
    keys: Tree

    @property
    def name(self) -> str:
        return f"{self.method}, {self.option}"

    @property
    def changes(self) -> Tree:
        changes = super().changes
        return {**changes, self.method: {**changes[self.method], **self.keys}}


@click.command()
@click.option("--seed", type=int, default=1000, show_default=True, help="Of the graph.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Place().work / "options_proof", show_default=True, help="Anew."
)
def try_options(seed: int, out: Path) -> None:
    """Run every option once and print its figures."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads than one only wait for each other in models this small
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{out.resolve()}.mlflow.db")
    out.parent.mkdir(parents=True, exist_ok=True)
    with workspace(out, PRESET, seed, SIZE) as params:
        prepare(params)
        # Only now: they import torch, see tests.proof.
        from components.worlds.randomwalks.oracle import behaviour, optimum
        from tests.proof.claims import Exact, trial_row
        from tests.proof.measuring import reward_distribution, sample

        graph = make_graph(seed)
        exact = Exact(behaviour_rewards(graph), reward_distribution(Place().sft / "policy", graph))
        start, best = behaviour(exact.of_sft).reward, optimum(exact.of_sft, BETA).objective(BETA)
        click.echo(f"{'the SFT policy':32} E[r] {start:.3f}  reachable {start / best:.1%} of {best:.3f}")
        found: dict[str, Any] = {}
        for method, option, keys in OPTIONS:
            trial, began = OptionTrial(method, BETA, option, keys), time.monotonic()
            policy = align(params, trial)
            row = trial_row(trial, sample(policy, load_params(Place().params), SIZE.samples), exact)
            last = read_json(policy.parent / "curve.json")[-1]
            kl, objective = row.kl, row.objective
            assert kl is not None and objective is not None
            click.echo(
                f"{trial.name:32} E[r] {row.reward.mean:.3f}  KL {kl.mean:.3f}  "
                f"objective {objective.mean:.3f} +- {objective.error:.3f}  reachable {row.share_of_reachable:.1%}  "
                f"clipped {last['clip_fraction']:.3f}  {time.monotonic() - began:.0f} s"
            )
            found[trial.name] = {**row.values(), "last_iteration": last}
        write_json(Path("options.json"), found)


if __name__ == "__main__":
    try_options()
