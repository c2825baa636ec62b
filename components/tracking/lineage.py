"""The way back from a registered model to the raw rows, by the digests of what every run read and made.

It needs neither the artifacts nor the run ids of one machine: a stage's outputs that DVC restored have the
digests that were recorded by the run that once made them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from components.digests import digest
from components.place import Place
from components.tracking.dvc_files import cached_file, dvc_cache
from components.tracking.history import RunRecord, find_maker, get_run
from components.tracking.registry import PROMOTION_RUN, ModelVersion, find_version

DELETED = "DELETED"  # the status of a run that is there no more
IN_PLACE = "in data/"  # where a raw file is that nobody has changed or removed
# Where all outputs of stages lie, and where one is put that a later round begins with.
_MADE = (Place().selection.parts[:1], Place().present_policy.parts)
_AFTER_ALL = 2**62  # a start time later than every run's


@dataclass(frozen=True)
class RawFile:
    """A file of data/ as a run read it.

    `rows` is None where neither data/ nor DVC's cache has it now, and of what has not a row a line.
    """

    path: str
    md5: str
    rows: int | None
    place: str


@dataclass
class Step:
    """A run and what it was made from."""

    run: RunRecord
    made_from: list[Step] = field(default_factory=list)
    raw_files: list[RawFile] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)  # path -> digest that no known run made

    def all_steps(self) -> list[Step]:
        """This step and all before it, each once, a step always before those it was made from."""
        found: dict[str, Step] = {}
        waiting = [self]
        while waiting:
            step = waiting.pop()
            if step.run.run_id not in found:
                found[step.run.run_id] = step
                waiting += step.made_from
        return sorted(found.values(), key=lambda step: -step.run.started)


@dataclass(frozen=True)
class Lineage:
    """A registered version and the step that registered it."""

    version: ModelVersion
    root: Step


def trace(reference: str, root: Path) -> Lineage:
    """Follow NAME@ALIAS or NAME@NUMBER back to the raw data.

    Args:
        root: of the repository, whose data and cache may hold the raw files.

    Raises:
        ArtifactError: no such model, alias or version.
    """
    return trace_version(find_version(reference), root)


def trace_version(version: ModelVersion, root: Path) -> Lineage:
    """The same of a version that was found before."""
    record = get_run(version.tags.get(PROMOTION_RUN, version.run_id))
    if record is None:  # its run was deleted; the version carries the same digests
        record = RunRecord(version.run_id, DELETED, _AFTER_ALL, {"stage": "promotion", **version.tags})
    return Lineage(version, _step(record, root, {}))


def _step(record: RunRecord, root: Path, known: dict[str, Step]) -> Step:
    """The step of a run; each is made once, for several later steps may share it."""
    if record.run_id not in known:
        known[record.run_id] = step = Step(record)
        raw = {path for path in record.inputs if Place().data in (Path(path), *Path(path).parents)}
        for path, md5 in record.inputs.items():
            if path in raw and not md5.endswith(".dir"):
                step.raw_files.append(_raw_file(path, md5, root))
        # What lies elsewhere was brought, and made by no run: the prompts of a suite, a checker.
        made = {path: value for path, value in record.inputs.items() if Path(path).parts[:1] in _MADE}
        makers, step.broken = _makers(record, made)
        step.made_from = [_step(maker, root, known) for maker in makers]
    return known[record.run_id]


def _makers(record: RunRecord, inputs: dict[str, str]) -> tuple[list[RunRecord], dict[str, str]]:
    """The runs that made a run's inputs, and the inputs that no run made.

    A folder is looked up as a whole first; one that no run made as a whole is looked up part by part.
    """
    makers: dict[str, RunRecord] = {}
    broken: dict[str, str] = {}
    settled: set[Path] = set()
    for path in sorted((Path(name) for name in inputs), key=lambda path: len(path.parts)):
        if settled.intersection(path.parents):
            continue
        value = inputs[path.as_posix()]
        # What a later round begins with was a candidate once, and lay where selection puts one.
        made = Place().selection / "policy" if path == Place().present_policy / "policy" else path
        maker = find_maker({made.as_posix(): value}, before=record.started)
        if maker is not None:
            makers[maker.run_id] = maker
            settled.add(path)
        elif not any(path in Path(other).parents for other in inputs):
            broken[path.as_posix()] = value
    return list(makers.values()), broken


def _raw_file(path: str, md5: str, root: Path) -> RawFile:
    content = content_of(path, md5, root)
    if content is None:
        return RawFile(path, md5, None, "not here: `dvc pull` may bring it")
    return RawFile(path, md5, _rows(content, path), IN_PLACE if content == root / path else "DVC's cache")


def content_of(path: str, md5: str, root: Path) -> Path | None:
    """Where the content of a raw file of any version lies: in data/, or in DVC's cache; None where it is not here."""
    present = root / path
    if present.is_file() and digest(present) == md5:
        return present
    cached = cached_file(dvc_cache(root), md5)
    return cached if cached.is_file() else None


def _rows(path: Path, name: str) -> int | None:
    if not name.endswith(".jsonl"):
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
