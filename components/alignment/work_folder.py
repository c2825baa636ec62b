"""Where an interrupted cycle waits to go on: a folder for each content, and beside it a record of what it is of."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.artifacts import read_json, recover_folder, remove_folder, write_json
from components.config import Compute
from components.digests import digest_of_values
from components.errors import ConfigError

logger = logging.getLogger("proximal")
# What may differ, besides the number itself, between two runs of unlike numbers of processes.
_OF_PROCESSES = {"processes", "compute.accelerate_config", "compute.gather_for_generation"}


def path(work: Path, cycle: int, content: Mapping[str, Any]) -> Path:
    """The folder, below `work`, of a content: of all that must be the same for an interrupted cycle to go on."""
    return work / f"alignment-{cycle}-{digest_of_values(content)[:16]}"


def without_requests(params: Mapping[str, Any]) -> dict[str, Any]:
    """Params without what only asks how to go on: work is the same with and without it."""
    compute = {name: value for name, value in params["compute"].items() if name != "reshard_checkpoints"}
    return {**params, "compute": compute}


def take_over(used: Path, cycle: int, content: Mapping[str, Any], compute: Compute) -> None:
    """Go on with interrupted work that another number of processes did and that is the same else, if params ask so.

    A checkpoint holds models and optimiser whole, so that any number of processes can share them out anew; sums over
    processes are then rounded otherwise than in a run that nothing broke.

    Raises:
        ConfigError: there is such work, and they do not.
    """
    if (used / "curve.json").exists():
        return
    now = _flat(content)
    for folder in _folders(used.parent, cycle):
        recover_folder(folder)
        record = _record(folder)
        if folder == used or not record.exists() or not (folder / "curve.json").exists():
            continue
        then = _flat(read_json(record)["content"])
        unlike = {name for name in then.keys() | now.keys() if then.get(name) != now.get(name)}
        if "processes" not in unlike or unlike - _OF_PROCESSES:
            continue
        done, processes = len(read_json(folder / "curve.json")), f"{then.get('processes')} processes"
        if not compute.reshard_checkpoints:  # no param of the stage: no result depends on it but such a one
            raise ConfigError(
                "interrupted work is there, of another number of processes",
                where=f"{folder}: {done} iterations of cycle {cycle}",
                expected=f"the {processes} that it was begun with",
                found=f"{now['processes']}, by compute.accelerate_config",
                do="take as many again, for the bytes of an unbroken run; or set compute.reshard_checkpoints: true to "
                "go on, equal but for rounding; or remove the folder to begin anew",
            )
        seconds = seconds_after(folder)
        folder.rename(used)
        write_record(used, content, seconds)
        record.unlink()
        logger.info(
            "alignment: %d iterations of cycle %d by %s go on with %s", *(done, cycle, processes, now["processes"])
        )
        return


def engine_folder(folder: Path) -> Path:
    """Beside the folder, for what an engine of rollouts is told by file, and its log."""
    return folder.with_name(f"{folder.name}.engine")


def write_record(folder: Path, content: Mapping[str, Any], seconds_after: Mapping[str, float]) -> None:
    """Note beside the folder what it is of, and the seconds that the cycle took up to each iteration."""
    write_json(_record(folder), {"content": content, "seconds": seconds_after})


def seconds_after(folder: Path) -> dict[str, float]:
    """Iteration -> the seconds that the cycle had taken after it; empty for a cycle that starts."""
    record = _record(folder)
    return dict(read_json(record)["seconds"]) if record.exists() else {}


def tell_of_others(used: Path, cycle: int, content: Mapping[str, Any]) -> None:
    """Warn of interrupted work on the same cycle that does not fit, and say by which values it differs."""
    for folder in _folders(used.parent, cycle):
        recover_folder(folder)
        if folder == used or not (folder / "curve.json").exists():
            continue
        record = _record(folder)
        others = _flat(read_json(record)["content"]) if record.exists() else {}
        now = _flat(content)
        names = [name for name in sorted(others.keys() | now.keys()) if others.get(name) != now.get(name)]
        logger.warning(
            "%s holds %d iterations of cycle %d and is not used: it was made with another %s. With that value again it "
            "goes on; when this cycle ends, the folder is removed",
            *(folder, len(read_json(folder / "curve.json")), cycle, ", ".join(names[:5]) if others else "content"),
        )


def remove_all(work: Path, cycle: int) -> None:
    """Delete every folder of a cycle that has ended, those of other contents too."""
    for folder in _folders(work, cycle):
        remove_folder(folder)
        remove_folder(engine_folder(folder))
        _record(folder).unlink(missing_ok=True)


def _folders(work: Path, cycle: int) -> Iterator[Path]:
    """Each folder of the cycle, also one of which only a record, or what a killed process put aside, is there."""
    names = {
        entry.name.removeprefix(".").split(".")[0]
        for pattern in ("alignment-{}-*", ".alignment-{}-*")
        for entry in work.glob(pattern.format(cycle))
    }
    return (work / name for name in sorted(names))


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return {name.removeprefix("params."): value for name, value in flat.items()}
