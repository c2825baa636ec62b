"""`python -m tests.proof`: runs the stages on several graphs and prints one table.

The stages run one after the other in this process, by their own commands. Run it from the root of the repository.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.artifacts import write_json
from components.config import METHODS, Method, load_params
from components.errors import USER_ERROR_STATUS, ProximalError
from components.place import Place
from components.worlds.randomwalks.graph import make_graph
from components.worlds.randomwalks.oracle import behaviour_rewards
from tests.proof.stages import Size, align, prepare, trials, workspace

if TYPE_CHECKING:
    from tests.proof.claims import Row
    from tests.proof.measuring import Estimate

logger = logging.getLogger("proximal")

PRESET = Path("infra") / "presets" / "randomwalks.yaml"
SEEDS = (1000, 1002, 1004)
BETAS = (0.1, 0.2)
BEST_OF = (4, 16)
SIZE = Size(walks=20_000, comparisons=8_000, sft_samples=1_000, samples=250, changes={})
# GRPO's price of KL differs from prompt to prompt, RLOO is PPO but for its baseline, and online DPO learns which
# response is better but not by how much, so that its beta is no price of KL: all three only when asked for.
SHOWN: tuple[Method, ...] = tuple(method for method in METHODS if method not in ("grpo", "rloo", "online_dpo"))
LEGEND = """\
± one standard error. KL: nats per sequence, to the SFT policy; the oracle's is to the behaviour policy.
share: of the optimum's E[r] - beta KL. reachable: of the optimum's with the SFT policy, as it came out, as reference.
gap: the E[r] that the best policy of the same KL has more."""


def main() -> None:
    """Run the command; an error that the user can mend becomes one message and exit status 2."""
    try:
        prove()
    except ProximalError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)


@click.command()
@click.option("--seed", "seeds", type=int, multiple=True, default=SEEDS, show_default=True, help="Of a graph.")
@click.option("--method", "methods", type=click.Choice(METHODS), multiple=True, default=SHOWN, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Place().work / "randomwalks_proof",
    show_default=True,
    help="Where the workspaces and proof.json go.",
)
def prove(seeds: tuple[int, ...], methods: tuple[Method, ...], out: Path) -> None:
    """Hold SFT, best of n and the methods against the exact optimum; exit with 1 if a claim does not hold."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{out.resolve() / 'mlflow.db'}")
    started = time.monotonic()
    proofs = {}
    for number, seed in enumerate(seeds, start=1):
        logger.info("graph %d, %d of %d, after %.0f s", seed, number, len(seeds), time.monotonic() - started)
        proofs[seed] = prove_graph(seed, out / str(seed), methods)
    seconds = time.monotonic() - started
    values = {str(seed): [row.values() for row in rows] for seed, rows in proofs.items()}
    write_json(out / "proof.json", {"seconds": seconds, "graphs": values})
    Console(width=140).print(table(proofs))
    click.echo(LEGEND)
    failed = [
        f"graph {seed}, {row.policy}: {claim}"
        for seed, rows in proofs.items()
        for row in rows
        for claim, holds in row.claims.items()
        if not holds
    ]
    for claim in failed:
        click.echo(f"does not hold: {claim}")
    click.echo(f"{seconds:.0f} s; written to {out / 'proof.json'}")
    if failed:
        sys.exit(1)


def prove_graph(
    seed: int, folder: Path, methods: tuple[Method, ...], size: Size = SIZE, betas: tuple[float, ...] = BETAS
) -> list[Row]:
    """Run the stages on one graph and measure every policy."""
    with workspace(folder, PRESET, seed, size) as params:
        prepare(params)
        # Only now: they import torch, and the stages' command has set what torch reads when it is imported.
        from tests.proof.claims import Exact, best_of_n_row, sft_row, trial_row
        from tests.proof.measuring import reward_distribution, sample

        def tell(row: Row) -> Row:
            numbers = row.reward.mean, row.oracle.reward
            logger.info("graph %d, %s: E[r] %.4f, the oracle's %.4f", seed, row.policy, *numbers)
            return row

        graph, sft = make_graph(seed), Place().sft / "policy"
        exact = Exact(behaviour_rewards(graph), reward_distribution(sft, graph))
        samples = sample(sft, load_params(Place().params), size.sft_samples)
        rows = [tell(sft_row(samples, exact)), *(tell(best_of_n_row(samples, n, exact)) for n in BEST_OF)]
        for trial in trials(methods, betas):
            policy = align(params, trial)
            rows.append(tell(trial_row(trial, sample(policy, load_params(Place().params), size.samples), exact)))
    return rows


def table(proofs: dict[int, list[Row]]) -> Table:
    """One line a policy."""
    result = Table(title="Random walks, each figure beside the oracle's", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("graph", "policy"):
        result.add_column(column)
    for column in ("E[r]", "oracle", "KL", "oracle", "E[r] - beta KL", "oracle", "share", "reachable", "gap", "holds"):
        result.add_column(Text(column), justify="right")
    for seed, rows in proofs.items():
        for row in rows:
            objective, beta = row.objective, row.beta
            result.add_row(
                str(seed),
                row.policy,
                _shown(row.reward),
                f"{row.oracle.reward:.3f}",
                _shown(row.kl) if row.kl else "",
                f"{row.oracle.kl:.3f}",
                _shown(objective) if objective else "",
                f"{row.oracle.objective(beta):.3f}" if beta else "",
                f"{row.share.mean:.1%}" if row.share else "",
                f"{row.share_of_reachable:.1%}" if row.share_of_reachable else "",
                f"{row.short_of_frontier:.3f}" if row.short_of_frontier is not None else "",
                ("yes" if all(row.claims.values()) else "NO") if row.claims else "",
            )
        result.add_section()
    return result


def _shown(number: Estimate) -> str:
    return f"{number.mean:.3f} ± {number.error:.3f}"


if __name__ == "__main__":
    main()
