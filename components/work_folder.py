"""Where interrupted work waits to go on: a folder for each content, and beside it a record of what it is of.

Work is one cycle (`alignment-1`) or one fit (`sft`, `reward_model`, `reward_model_2` for a second member); a row of the
list in its `CURVE` is a piece of it that is done, an iteration or a step.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from components.artifacts import read_json, recover_folder, remove_folder, write_json
from components.digests import digest_of_values
from components.errors import ConfigError

logger = logging.getLogger("proximal")
CURVE = "curve.json"
_OF_WORK = re.compile(r"[a-z0-9_-]+-[0-9a-f]{16}")
# Set by whoever removes the folders of a stage once DVC has taken what the stage made: until then a kill may undo it.
KEPT_VARIABLE = "PROXIMAL_WORK_IS_KEPT"
# What may differ, besides the number itself, between two runs of unlike numbers of processes.
_OF_PROCESSES = {"processes", "compute.accelerate_config", "compute.gather_for_generation"}


class Asked(Protocol):
    """What params ask of interrupted work: see components.config.Compute."""

    @property
    def reshard_checkpoints(self) -> bool: ...


class Work(NamedTuple):
    """One piece of work and all that must be the same for it to go on.

    Args:
        root: the folder that holds the folders of all work.
        name: of the stage, with what tells its pieces apart.
        noun: what its pieces are called, e.g. "iterations of cycle 1".
    """

    root: Path
    name: str
    noun: str
    content: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.root / f"{self.name}-{digest_of_values(self.content)[:16]}"

    def find(self, asked: Asked) -> None:
        """Put right what a killed process left, take over what another number of processes did, tell of the rest.

        Raises:
            ConfigError: as `_take_over`.
        """
        recover_folder(self.folder)
        self._take_over(asked)
        self._tell_of_others()

    def write_record(self, seconds_after: Mapping[str, float]) -> None:
        """Note beside the folder what it is of, and the seconds that the work took up to each iteration."""
        write_json(_record(self.folder), {"content": self.content, "seconds": seconds_after})

    def seconds_after(self) -> dict[str, float]:
        """Iteration -> the seconds that the work had taken after it; empty for one that starts."""
        record = _record(self.folder)
        return dict(read_json(record)["seconds"]) if record.exists() else {}

    def _take_over(self, asked: Asked) -> None:
        """Go on with work that another number of processes did and that is the same else, if params ask so.

        A checkpoint holds models and optimiser whole, so that any number of processes can share them out anew; sums
        over processes are then rounded otherwise than in a run that nothing broke.

        Raises:
            ConfigError: there is such work, and they do not.
        """
        used = self.folder
        if (used / CURVE).exists():
            return
        now = _flat(self.content)
        for folder in _folders(self.root, self.name):
            recover_folder(folder)
            record = _record(folder)
            if folder == used or not record.exists() or not (folder / CURVE).exists():
                continue
            then = _flat(read_json(record)["content"])
            unlike = {name for name in then.keys() | now.keys() if then.get(name) != now.get(name)}
            if "processes" not in then.keys() & unlike or unlike - _OF_PROCESSES:
                continue
            done, processes = len(read_json(folder / CURVE)), f"{then['processes']} processes"
            if not asked.reshard_checkpoints:  # no param of the stage: no result depends on it but such a one
                raise ConfigError(
                    "interrupted work is there, of another number of processes",
                    where=f"{folder}: {done} {self.noun}",
                    expected=f"the {processes} that it was begun with",
                    found=f"{now['processes']}, by compute.accelerate_config",
                    do="take as many again, for the bytes of an unbroken run; or set compute.reshard_checkpoints: true "
                    "to go on, equal but for rounding; or remove the folder to begin anew",
                )
            seconds = read_json(record)["seconds"]
            folder.rename(used)
            self.write_record(seconds)
            record.unlink()
            stage = self.name.partition("-")[0]
            logger.info("%s: %d %s by %s go on with %s", stage, done, self.noun, processes, now["processes"])
            return

    def _tell_of_others(self) -> None:
        """Warn of interrupted work of the same name that does not fit, and say by which values it differs."""
        for folder in _folders(self.root, self.name):
            recover_folder(folder)
            if folder == self.folder or not (folder / CURVE).exists():
                continue
            record = _record(folder)
            others = _flat(read_json(record)["content"]) if record.exists() else {}
            now = _flat(self.content)
            names = [name for name in sorted(others.keys() | now.keys()) if others.get(name) != now.get(name)]
            unlike = ", ".join(names[:5]) if others else "content"
            logger.warning(
                "%s holds %d %s and is not used: it was made with another %s. With that value again it "
                "goes on; when this %s ends, the folder is removed",
                *(folder, len(read_json(folder / CURVE)), self.noun, unlike),
                "cycle" if self.name.startswith("alignment") else "stage",
            )


def without_requests(params: Mapping[str, Any]) -> dict[str, Any]:
    """Params without what only asks how to go on: work is the same with and without it."""
    compute = {name: value for name, value in params["compute"].items() if name != "reshard_checkpoints"}
    return {**params, "compute": compute}


def engine_folder(folder: Path) -> Path:
    """Beside the folder, for what an engine of rollouts is told by file, and its log."""
    return folder.with_name(f"{folder.name}.engine")


def ended(root: Path, stage: str, used: Collection[Path]) -> None:
    """A stage has made its outputs: delete every folder of it, of other contents too.

    Those that it used stay where somebody looks after it (`KEPT_VARIABLE`): DVC has not yet taken the outputs, and
    deletes them before it runs a stage again.
    """
    is_kept = KEPT_VARIABLE in os.environ
    for folder in _folders(root, stage, further=True):
        remove_folder(engine_folder(folder))
        if not (is_kept and folder in used):
            _remove(folder)


def remove_all(root: Path, stage: str) -> None:
    """Delete every folder of a stage, by DVC's name for it: what it made is safe."""
    for folder in _folders(root, stage.replace("@", "-"), further=True):
        remove_folder(engine_folder(folder))
        _remove(folder)


def take_from(other: Path, root: Path) -> None:
    """Move the folders of all work from another place for them, but for what is here already."""
    here = {_name(entry) for entry in root.iterdir()}
    for entry in sorted(other.iterdir(), key=lambda entry: entry.is_file()):  # a record after its folder
        if _OF_WORK.fullmatch(name := _name(entry)) and name not in here:
            entry.rename(root / entry.name)


def _remove(folder: Path) -> None:
    remove_folder(folder)
    _record(folder).unlink(missing_ok=True)


def _folders(root: Path, name: str, *, further: bool = False) -> Iterator[Path]:
    """Each folder of a name, also one of which only a record, or what a killed process put aside, is there.

    Args:
        further: those of further members too.
    """
    of_it = re.compile(re.escape(name) + (r"(_\d+)?" if further else "") + "-[0-9a-f]{16}")
    names = {_name(entry) for entry in root.glob("*")}
    return (root / each for each in sorted(names) if of_it.fullmatch(each))


def _name(entry: Path) -> str:
    """Of the work that a file or folder belongs to: of a folder, its record, its halves, its engine's."""
    return entry.name.removeprefix(".").split(".")[0]


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return {name.removeprefix("params."): value for name, value in flat.items()}
