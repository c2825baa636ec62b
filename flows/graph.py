"""The stage graph, as DVC sees it: what there is, what needs what, and what has changed since it last ran."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from components.data_validation.links import refuse_links
from components.errors import ConfigError, DataError, EnvironmentFault

if TYPE_CHECKING:
    from dvc.stage import Stage as DvcStage

PIPELINE = Path("dvc.yaml")
_ONE_LOOK = threading.Lock()


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml, or pinned data (`data.dvc`), which DVC treats as a stage without a command.

    Args:
        name: what `dvc repro` calls it.
        upstream: the stages whose outputs it reads, but for those that another of these needs.
        changed: DVC finds that its dependencies, params, command or outputs differ from dvc.lock.
        description: its `desc` in dvc.yaml.
    """

    name: str
    upstream: tuple[str, ...]
    changed: bool
    description: str = ""


def read_stages(repository: Path, pipeline: Path = PIPELINE) -> list[Stage]:
    """Every stage of a pipeline file and the pinned data it reads, each after all that it needs.

    Args:
        pipeline: dvc.yaml, or another file of that kind, relative to the repository.
    Raises:
        ConfigError: there is no DVC project, or the file cannot be read.
        DataError: a `.dvc` file pins data that is not there, or that is given by links.
        EnvironmentFault: another DVC command works in the folder.
    """
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    with _dvc_faults(repository, pipeline), Repo(str(repository)) as project, project.lock:
        graph = project.index.graph
        pending = [stage for stage in graph if isinstance(stage, PipelineStage) and stage.path_in_repo == str(pipeline)]
        upstream: dict[DvcStage, list[DvcStage]] = {}
        while pending:
            stage = pending.pop(0)
            upstream[stage] = sorted(graph.successors(stage), key=_name)
            pending += [needed for needed in upstream[stage] if needed not in upstream]
        order = list(TopologicalSorter(upstream).static_order())
        before: dict[DvcStage, set[DvcStage]] = {}
        for stage in order:
            before[stage] = set(upstream[stage]).union(*(before[needed] for needed in upstream[stage]))
        return [
            Stage(
                name=_name(stage),
                upstream=tuple(
                    _name(needed)
                    for needed in upstream[stage]
                    if not any(needed in before[other] for other in upstream[stage])
                ),
                changed=_has_changed(stage),
                description=stage.desc or "",
            )
            for stage in order
        ]


@contextmanager
def _dvc_faults(repository: Path, pipeline: Path) -> Iterator[None]:
    from dvc.exceptions import DvcException
    from dvc.lock import LockError

    try:
        yield
    except LockError as fault:
        raise EnvironmentFault(
            "another DVC command works in this folder",
            where=str(repository),
            found=" ".join(str(fault).split()),
            do="wait until it ends",
        ) from fault
    except DvcException as fault:
        raise ConfigError(
            "DVC cannot read the pipeline",
            where=str(repository / pipeline),
            found=" ".join(str(fault).split()),
            do="`dvc stage list` shows the same fault; mend this file, params.yaml or the .dvc file",
        ) from fault


def has_changed(repository: Path, name: str) -> bool:
    """Whether a stage has to be brought up to date now, after what the stages before it made.

    Raises:
        ConfigError, DataError, EnvironmentFault: as `read_stages`.
    """
    from dvc.repo import Repo

    # Two tasks may ask at once, and a `dvc repro` may begin or end meanwhile: one after the other.
    with (
        _ONE_LOOK,
        _dvc_faults(repository, PIPELINE),
        Repo(str(repository), _wait_for_lock=True) as project,
        project.lock,
    ):
        return any(_has_changed(stage) for stage in project.index.stages if _name(stage) == name)


def sort_lock(repository: Path, stages: Sequence[Stage]) -> None:
    """Put the stages of dvc.lock in graph order: those that ran side by side stand there as they happened to end."""
    from dvc.repo import Repo
    from dvc.utils.serialize import modify_yaml

    lock = repository / PIPELINE.with_suffix(".lock")
    names = [stage.name for stage in stages]
    if not lock.exists():
        return
    with Repo(str(repository)) as project, project.lock, modify_yaml(str(lock)) as content:
        written = content["stages"]
        content["stages"] = {
            name: written[name]
            for name in sorted(written, key=lambda name: names.index(name) if name in names else len(names))
        }


def _name(stage: DvcStage) -> str:
    if not stage.cmd:
        return str(stage.path_in_repo)
    return str(stage.name if stage.path_in_repo == str(PIPELINE) else f"{stage.path_in_repo}:{stage.name}")


def _has_changed(stage: DvcStage) -> bool:
    if not stage.cmd:
        for output in stage.outs:
            if not output.exists:
                raise DataError(
                    "pinned data is absent",
                    where=f"{output.def_path} (pinned by {stage.path_in_repo})",
                    expected="the files that the pin names",
                    found="nothing",
                    do=f"`dvc pull {stage.path_in_repo}`",
                )
            refuse_links(Path(output.fs_path))  # before anything is pinned
    return bool(stage.status(check_updates=False))
