"""The runs that `proximal compare` may be asked for: the matrix of compare/dvc.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.errors import ConfigError
from flows.graph import Stage, read_stages

PIPELINE = Path("compare") / "dvc.yaml"
FIGURES = Path("artifacts") / "compare"


def methods_there(repository: Path) -> list[str]:
    """The methods that the matrix has runs of, in its order."""
    runs = (stage.name.partition("@")[2] for stage in read_stages(repository, PIPELINE))
    return list(dict.fromkeys(run.rpartition("-")[0] for run in runs if run))


def read_runs(repository: Path, methods: Sequence[str], seeds: Sequence[int]) -> list[Stage]:
    """The runs of these methods and seeds, and the pinned data that they read.

    Raises:
        ConfigError: the matrix has no such run.
    """
    wanted = {f"{PIPELINE}:run@{method}-{seed}" for method in methods for seed in seeds}
    there = read_stages(repository, PIPELINE)
    if missing := wanted - {stage.name for stage in there}:
        raise ConfigError(
            "no such run",
            where=f"{PIPELINE}: stages.run.matrix",
            expected=", ".join(stage.name.partition("@")[2] for stage in there if "@" in stage.name),
            found=", ".join(sorted(name.partition("@")[2] for name in missing)),
            do="add the method or the seed to the matrix",
        )
    return [stage for stage in there if stage.name in wanted or "@" not in stage.name]
