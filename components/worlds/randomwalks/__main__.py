"""The commands of the randomwalks world: its exact answers, and its data."""

from __future__ import annotations

from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.worlds.command import told_in_one_message, write_files
from components.worlds.randomwalks import generator
from components.worlds.randomwalks import oracle as exact
from components.worlds.randomwalks.graph import make_graph


@click.group()
def main() -> None:
    """Walks on a random graph, where the best policy is known exactly."""


@main.command()
@click.option("--seed", type=int, required=True, help="The graph's seed; trlX uses 1000.")
@click.option("--beta", type=float, required=True, help="The price of one nat of KL.")
@click.option(
    "--n",
    "ns",
    type=click.IntRange(1, 10**9),
    multiple=True,
    default=(1, 2, 4, 8, 16, 32, 64),
    show_default=True,
    help="Of best of n; may be given several times.",
)
@told_in_one_message
def oracle(seed: int, beta: float, ns: tuple[int, ...]) -> None:
    """Print what the behaviour policy, best of n and the optimum of E[r] - beta * KL reach, exactly."""
    graph = make_graph(seed)
    distribution = exact.behaviour_rewards(graph)
    outcomes = {"behaviour policy": exact.behaviour(distribution)}
    outcomes |= {f"best of {n}": exact.best_of_n(distribution, n) for n in ns}
    outcomes["optimum"] = exact.optimum(distribution, beta)
    bounds = {f"best of {n}": f"{exact.best_of_n_kl_bound(n):.4f}" for n in ns}

    table = Table(title=f"Random walks, graph seed {seed}, exact", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in ("E[r]", "KL", "log n - (n-1)/n", f"E[r] - {beta:g} KL"):
        table.add_column(Text(column), justify="right")
    for policy, outcome in outcomes.items():
        numbers = (outcome.reward, outcome.kl, outcome.objective(beta))
        reward, kl, objective = (f"{number:z.4f}" for number in numbers)
        table.add_row(policy, reward, kl, bounds.get(policy, ""), objective)
    Console().print(table)
    click.echo("r: optimality in [0, 1]; KL to the behaviour policy, nats per sequence; means over the starts.")
    unsolvable = sum(not graph.is_solvable(start) for start in graph.starts)
    if unsolvable:
        click.echo(f"From {unsolvable} of the {len(graph.starts)} starts no walk is worth more than 0.")


@main.command()
@click.option("--seed", type=int, required=True, help="Of the graph and of the walks.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The folder to write to; made when missing."
)
@click.option("--walks", type=click.IntRange(min=1), default=generator.WALKS, show_default=True)
@click.option("--comparisons", type=click.IntRange(min=1), default=generator.COMPARISONS, show_default=True)
@click.option(
    "--label-scale",
    type=float,
    default=generator.LABEL_SCALE,
    show_default=True,
    help="How sure the Bradley-Terry labels are; 0 is chance.",
)
@told_in_one_message
def generate(seed: int, out: Path, walks: int, comparisons: int, label_scale: float) -> None:
    """Write prompts, demonstrations and comparisons: the same bytes at the same arguments."""
    files = generator.generate(seed, walks, comparisons, label_scale)
    write_files(out, files)


if __name__ == "__main__":
    main()
