"""The way back from a registered model to the raw rows, as a person reads it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.tracking.lineage import DELETED, IN_PLACE, Lineage, Step

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree


def print_lineage(lineage: Lineage, console: Console | None = None) -> None:
    """Print each run from the model back to the raw rows, and where the chain breaks."""
    from rich.console import Console
    from rich.tree import Tree

    version, steps = lineage.version, lineage.root.all_steps()
    aliases = "".join(f" @{alias}" for alias in version.aliases)
    title = f"[bold]{version.name} version {version.number}[/bold]{aliases}"
    tree = Tree(f"{title}  {version.tags.get('decision', '')}")
    for step in steps:
        _add_run(tree, step)
    for step in steps:
        if step.raw_files:
            _add_data(tree, step)
    if not any(step.raw_files for step in steps):
        tree.add("[red]the chain does not reach data/: see above where it breaks[/red]")
    (console or Console()).print(tree)


def as_plain(lineage: Lineage) -> dict[str, Any]:
    """The same as plain values, each run with the runs that it was made from by their ids."""
    version = lineage.version
    return {
        "model": version.name,
        "version": version.number,
        "aliases": list(version.aliases),
        "decision": version.tags.get("decision"),
        "runs": [
            {
                "run_id": step.run.run_id,
                "name": step.run.name,
                "status": step.run.status,
                **{name: step.run.tags.get(name) for name in ("git_commit", "git_dirty", "params_sha256", "data_md5")},
                "made_from": [source.run.run_id for source in step.made_from],
                "raw_files": [asdict(file) for file in step.raw_files],
                "broken": step.broken,
            }
            for step in lineage.root.all_steps()
        ],
    }


def _add_run(tree: Tree, step: Step) -> None:
    tags = step.run.tags
    branch = tree.add(f"[bold]{step.run.name}[/bold]  run {step.run.run_id}")
    if step.run.status == DELETED:
        branch.add("[red]this run was deleted; what follows is from the tags of the version[/red]")
    changes = " with uncommitted changes" if tags.get("git_dirty") == "true" else ""
    commit, params = tags.get("git_commit", "unknown"), tags.get("params_sha256", "unknown")
    branch.add(f"commit {commit[:12]}{changes}, params {params[:12]}")
    if base_model := tags.get("base_model"):
        branch.add(f"starts from {base_model}")
    if step.made_from:
        branch.add("made from " + ", ".join(sorted(source.run.name for source in step.made_from)))
    for path, value in step.broken.items():
        branch.add(f"[red]the chain breaks here: no run in this store made {path} ({value})[/red]")


def _add_data(tree: Tree, step: Step) -> None:
    data = tree.add(f"[bold]data[/bold]  data.dvc {step.run.tags.get('data_md5', 'unknown')}")
    for file in step.raw_files:
        rows = "rows unknown" if file.rows is None else f"{file.rows:,} rows"
        place = "" if file.place == IN_PLACE else f"  {file.place}"
        data.add(f"{Path(file.path).name}  {rows}  md5 {file.md5}{place}")
