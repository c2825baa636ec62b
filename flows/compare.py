"""Methods side by side: the runs of compare/dvc.yaml, each the whole pipeline in a clone, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from rich import box
from rich.table import Table

from components.artifacts import read_json
from components.errors import ConfigError, ProximalError
from components.measuring.metrics import JUDGE, KL, WIN_RATE, Metric, metric_that_counts, rubric_metrics
from flows.environment import set_environment, stage_environment
from flows.graph import Stage, read_stages
from flows.processes import processes
from flows.stages import PipelineFailure, conclude, failed, run_stage
from flows.workspace import whole_repository

PIPELINE = Path("compare") / "dvc.yaml"
FIGURES = Path("artifacts") / "compare"
COSTS = {"sampled_tokens": "Tokens sampled", "trained_tokens": "Tokens trained on", "seconds": "Seconds of training"}
Figures = dict[tuple[str, int], dict[str, Any]]  # (method, seed) -> what `proximal run --figures` writes


@flow(name="compare", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def compare(repository: Path, methods: Sequence[str], seeds: Sequence[int]) -> State[Any]:
    """Bring the runs of these methods and seeds up to date; gives their `Figures`."""
    repository = repository.resolve()
    set_environment(repository)
    wanted = {f"{PIPELINE}:run@{method}-{seed}": (method, seed) for method in methods for seed in seeds}
    try:
        with whole_repository(repository), processes() as started:
            setting = (repository, stage_environment(repository), started)
            runs: dict[str, PrefectFuture[Any]] = {}
            for stage in _stages(repository, wanted):
                upstream = [runs[name] for name in stage.upstream]
                runs[stage.name] = run_stage.submit(stage, *setting, upstream)
            conclude(runs, {})
            figures: Figures = {
                (method, seed): read_json(repository / FIGURES / f"{method}-{seed}.json")
                for method, seed in wanted.values()
            }
            return Completed(data=figures)
    except (ProximalError, PipelineFailure) as failure:
        return failed(failure)


def _stages(repository: Path, wanted: dict[str, tuple[str, int]]) -> list[Stage]:
    """The wanted runs, and the pinned data that they read.

    Raises:
        ConfigError: the matrix has no such run.
    """
    there = read_stages(repository, PIPELINE)
    if missing := wanted.keys() - {stage.name for stage in there}:
        raise ConfigError(
            "no such run",
            where=f"{PIPELINE}: stages.run.matrix",
            expected=", ".join(stage.name.partition("@")[2] for stage in there if "@" in stage.name),
            found=", ".join(sorted(name.partition("@")[2] for name in missing)),
            do="add the method or the seed to the matrix",
        )
    return [stage for stage in there if stage.name in wanted or "@" not in stage.name]


def comparison_tables(figures: Figures) -> list[Table]:
    """A table a seed: SFT and what each method made of it, on held-out prompts, with intervals, and what it took."""
    return [
        _table(seed, {method: content for (method, other), content in figures.items() if other == seed})
        for seed in dict.fromkeys(seed for _, seed in figures)
    ]


def _table(seed: int, runs: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=f"seed {seed}", title_justify="left", box=box.MARKDOWN)
    table.add_column("")
    for column in ("SFT", *runs):
        table.add_column(column, justify="right")
    evaluations = [content["evaluation"] for content in runs.values()]
    for metric in (*rubric_metrics(evaluations[0]["sft"]), JUDGE, KL):
        cells = [evaluation["candidate"][metric.name] for evaluation in evaluations]
        table.add_row(metric.label, *(_cell(cell, metric) for cell in (evaluations[0]["sft"][metric.name], *cells)))
    table.add_row(WIN_RATE.label, "", *(_cell(evaluation["win_rate"], WIN_RATE) for evaluation in evaluations))
    truth = metric_that_counts(evaluations[0]["sft"])
    gains = [evaluation["difference"][truth.name]["mean"] for evaluation in evaluations]
    table.add_row(f"{truth.label}, gain", "", *(f"{gain:+.{truth.decimals}f}" for gain in gains))
    # What best-of-n is the yardstick of.
    nats = [evaluation["candidate"]["kl"]["mean"] for evaluation in evaluations]
    per_nat = [f"{gain / kl:+.3f}" if kl > 0 else "" for gain, kl in zip(gains, nats, strict=True)]
    table.add_row(f"{truth.label}, gain per nat", "", *per_nat)
    for name, label in COSTS.items():
        costs = [content["cost"].get(name) for content in runs.values()]
        table.add_row(label, "", *("" if cost is None else f"{cost:,.0f}" for cost in costs))
    return table


def _cell(interval: dict[str, float], metric: Metric) -> str:
    mean, low, high = (f"{interval[key]:.{metric.decimals}f}" for key in ("mean", "low", "high"))
    return f"{mean} \\[{low}, {high}]"
