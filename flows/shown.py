"""What Prefect's pages show of a run: its name, tags, how far it is and what it came to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from rich.console import Console

from components.interface.comparison_tables import Figures, comparison_tables
from components.interface.rounds import Round, rounds_table
from components.interface.terminal import Ending, way_to
from components.measuring.metrics import WIN_RATE, interval_text, metrics_among
from components.repository import last_commit

_PAGE_COLUMNS = 400  # tables stay in one piece

logger = logging.getLogger("prefect.proximal")


@contextmanager
def as_far_as_prefect_answers(what: str) -> Iterator[None]:
    """What the pages show is no reason to stop: a server that is away misses it, and the run goes on."""
    try:
        yield
    except httpx.HTTPError as fault:
        logger.warning("Prefect's server does not answer (%s): its pages lack %s; the run goes on", fault, what)


def name_run(
    folder: Path, methods: Sequence[str], seeds: Sequence[int], overrides: Mapping[str, Any] | None = None
) -> str:
    """Name the flow run by methods, seeds, commit and what else it overrides, and tag it with the first two.

    Args:
        folder: where the run works.
        methods: or what else it is about, as the policy that is measured.

    Returns its name.
    """
    commit = last_commit(folder).partition(" ")[0]
    others = [f"{key}={value}" for key, value in (overrides or {}).items() if key not in ("method", "seed")]
    word = "seed" if len(seeds) == 1 else "seeds"
    name = " ".join([", ".join(methods), word, ", ".join(map(str, seeds)), commit, *others])
    tags = list(dict.fromkeys([*flow_run.tags, *methods, *(f"seed {seed}" for seed in seeds)]))
    with as_far_as_prefect_answers("its name"), get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name, tags=tags)
    return name


def show_progress(stages: Collection[PrefectFuture[Any]]) -> None:
    """From now on an artifact shows how many of these are done; one that failed, or was not run, is not."""
    artifact: Any = None
    with as_far_as_prefect_answers("its progress"):
        what = f"the {len(stages)} stages that are done"
        artifact = create_progress_artifact(0.0, key="stages", description=what)
    done, one_at_a_time = [], threading.Lock()

    def note(stage: PrefectFuture[Any]) -> None:
        stage.wait()  # it has ended; this reads how
        if artifact is not None and stage.state.is_completed():
            with one_at_a_time, as_far_as_prefect_answers("its progress"):
                done.append(stage)
                update_progress_artifact(artifact, 100.0 * len(done) / len(stages))

    for stage in stages:
        # In the flow's context: what is called back has none, and would not know the server.
        stage.add_done_callback(partial(copy_context().run, note))  # type: ignore[call-arg]


def show_result(evaluation: dict[str, Any] | None, ending: Ending, repository: Path) -> None:
    """An artifact named by the verdict: the figures that it rests on, the report and the way to MLflow's run."""
    verdict = ending.verdict.sentence() if ending.verdict else "Not offered for promotion"
    if ending.idle:
        verdict = f"Nothing to do: {ending.idle}"
    lines = [*(f"- warning: {warning}" for warning in ending.warnings), ""]
    lines += figures_of(evaluation)
    if ending.report is not None:
        lines.append(f"- report: `{repository / ending.report}`")
    if not ending.idle:
        lines.append(f"- run in MLflow: `{ending.run_id}`{way_to(ending.run_id)}")
    with as_far_as_prefect_answers("its result"):
        create_markdown_artifact("\n".join(lines), key="result", description=verdict)


def show_links(run_id: str, report: str | None) -> None:
    """Links to MLflow's run and its report, where a server has them: the pages of a file are nowhere until asked for.

    Args:
        report: its page, from MLflow's root on; None where there is none.
    """
    from components.tracking import store
    from components.tracking.attachments import address

    if not store.tracking_uri().startswith("http"):
        return
    with as_far_as_prefect_answers("its links"):
        create_link_artifact(address(run_id), link_text="the run in MLflow", key="mlflow")
        if report is not None:
            create_link_artifact(f"{store.server_url()}/{report}", link_text="its report", key="report")


def show_evaluation(policy: str, evaluation: dict[str, Any]) -> None:
    """An artifact with the figures of one policy."""
    with as_far_as_prefect_answers("its figures"):
        create_markdown_artifact(
            "\n".join(figures_of(evaluation, policy)),
            key="evaluation",
            description=f"{policy} against the SFT policy",
        )


def show_comparison(figures: Figures) -> None:
    """An artifact with a table a seed."""
    page = Console(file=StringIO(), width=_PAGE_COLUMNS, color_system=None)
    for table in comparison_tables(figures):
        page.print(table)
    what = ", ".join(dict.fromkeys(method for method, _ in figures))
    with as_far_as_prefect_answers("the comparison"):
        create_markdown_artifact(page.file.getvalue(), key="comparison", description=what)  # type: ignore[attr-defined]


def show_rounds(rounds: Sequence[Round]) -> None:
    """An artifact with the table of all rounds."""
    page = Console(file=StringIO(), width=_PAGE_COLUMNS, color_system=None)
    page.print(rounds_table(rounds))
    with as_far_as_prefect_answers("the rounds"):
        create_markdown_artifact(page.file.getvalue(), key="rounds", description=f"{len(rounds)} rounds")  # type: ignore[attr-defined]


def figures_of(evaluation: dict[str, Any] | None, policy: str = "candidate") -> list[str]:
    """SFT against a policy as a table in Markdown; nothing where nothing was measured."""
    if evaluation is None:
        return []
    lines = [f"| held-out prompts | SFT | {policy} | difference |", "|---|---:|---:|---:|"]
    for metric in metrics_among(evaluation["candidate"]):
        cells = [interval_text(evaluation[side][metric.name], metric) for side in ("sft", "candidate")]
        cells.append(interval_text(evaluation["difference"][metric.name], metric, "+"))
        lines.append(f"| {' | '.join([metric.label, *cells])} |")
    return [*lines, f"| {WIN_RATE.label} | | {interval_text(evaluation['win_rate'], WIN_RATE)} | |", ""]
