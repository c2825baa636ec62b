"""What a person sees at the end of a run."""

from __future__ import annotations

import subprocess
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from components.interface.fitting import Fitting, reader
from components.interface.run_tables import evaluation_table
from components.measuring.metrics import interval_text, metric_that_counts
from components.promotion.verdict import Verdict


@dataclass(frozen=True)
class Ending:
    """What there is to tell at the end of a run.

    Args:
        run_id: of the pipeline's run in MLflow.
        verdict: of promotion; None where the candidate was not offered.
        warnings: what is wrong with the policies.
        report: where the page for people lies.
        model: where the candidate's files lie; None where they are gone with a clone.
        before: of a run in a clone, the evaluation of the last run in the repository itself.
        idle: why there was nothing to do, and who is the champion; None where there was.
    """

    run_id: str
    verdict: Verdict | None = None
    warnings: list[str] = field(default_factory=list)
    report: Path | None = None
    model: Path | None = None
    before: dict[str, Any] | None = None
    idle: str | None = None

    def below(self, root: Path) -> Ending:
        """The same, its paths from the present folder on, which sees the repository at `root`."""
        report, model = (path and root / path for path in (self.report, self.model))
        return replace(self, report=report, model=model)

    def plain(self) -> dict[str, Any]:
        """What scripts want of it, as plain values."""
        verdict = {**asdict(self.verdict), "sentence": self.verdict.sentence()} if self.verdict else None
        paths = {name: str(path) if path else None for name, path in (("report", self.report), ("model", self.model))}
        run = {"run_id": None if self.idle else self.run_id, "nothing_to_do": self.idle}
        return {**run, "verdict": verdict, "warnings": self.warnings, **paths}


def show_result(repository: Path | None, evaluation: dict[str, Any] | None, ending: Ending | None = None) -> None:
    """The end of a run: SFT against the candidate, the verdict, where the report and the model are.

    Args:
        repository: None when the run was in a clone, which is gone.
    """
    console = reader()
    if evaluation:
        print_whole(evaluation_table(evaluation))
    if ending is not None:
        _show_ending(console, ending, evaluation)
    if repository is not None and lock_has_changed(repository):
        console.print(
            f"{'lock:':<8}dvc.lock now holds this machine's results: commit it (git commit dvc.lock) to compare later "
            "runs with it",
            highlight=False,
        )


def _show_ending(console: Console, ending: Ending, evaluation: dict[str, Any] | None) -> None:
    if evaluation and ending.before:
        metric = metric_that_counts(evaluation["candidate"])
        for label, figures in (("this run", evaluation), ("the last run in this folder", ending.before)):
            if metric.name in figures["candidate"]:
                console.print(f"{metric.name} of {label}: {interval_text(figures['candidate'][metric.name], metric)}")
    for warning in ending.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    if ending.idle:
        console.print(Text(f"NOTHING TO DO: {ending.idle}", style="bold green"))
    if evaluation and not (ending.idle and ending.verdict is None):
        console.print(verdict_text(ending.verdict))
    if ending.report is not None:
        _line(console, "report", ending.report)
    _line(console, "model", _model(ending))
    _line(console, "run", _run(ending.run_id))


def verdict_text(verdict: Verdict | None) -> Fitting:
    """The verdict in the colour of what it means, in several lines where one does not hold it."""
    if verdict is None:
        lines = ["NOT OFFERED for promotion: the champion stays as it is (--no-promotion)"]
        style = "bold yellow"
    else:
        lines = verdict.lines()
        style = "bold green" if verdict.is_champion else "bold yellow" if verdict.is_asked else "bold red"
    return Fitting(Text(" ".join(lines), style), Text("\n  ".join(lines), style))


def _model(ending: Ending) -> str:
    verdict = ending.verdict
    if verdict is None:
        return str(ending.model) if ending.model else "not registered, and gone with the clone; DVC's cache has it"
    name = f"models:/{verdict.model}" + ("@champion" if verdict.is_champion else f"/{verdict.version}")
    return f"{name} ({ending.model})" if ending.model else name


def _run(run_id: str) -> str:
    from components.tracking.history import get_run
    from components.tracking.store import StoreAway

    try:
        is_kept = get_run(run_id) is not None
    except StoreAway:
        return f"{run_id}: MLflow does not answer; `proximal sync` tells it later what it missed"
    if not is_kept:
        return "MLflow keeps none of this one: nothing had changed"
    return f"{run_id} in MLflow{way_to(run_id)}"


def way_to(run_id: str) -> str:
    """How to see a run: its page on the server that keeps it, or on the one that `proximal ui` starts."""
    from components.tracking import store
    from components.tracking.attachments import address

    is_served = store.tracking_uri().startswith("http")
    return f":{'' if is_served else ' `proximal ui`, then'}\n{address(run_id)}"


def _line(console: Console, label: str, text: object) -> None:
    """A label and a path, an address or a name, which is never broken in two."""
    console.print(f"{label + ':':<8}{text}", soft_wrap=True, highlight=False, markup=False)


def lock_has_changed(repository: Path) -> bool:
    """Whether dvc.lock is another than the commit's."""
    command = ["git", "status", "--porcelain", "--", "dvc.lock"]
    asked = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    return asked.returncode == 0 and bool(asked.stdout.strip())


def print_whole(table: RenderableType) -> None:
    """Print a table in the form that fits the terminal; whole where there is none."""
    reader().print(table)
