"""What a run leaves for the person who asked for it, gathered before a clone is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

from components.artifacts import read_json
from components.config import load_params
from components.interface.terminal import Ending
from components.measuring.health import warnings
from components.measuring.records import read_records, signs_of
from components.place import Place
from components.promotion.report import title
from components.promotion.verdict import Verdict
from components.tracking.registry import CHAMPION, version_at
from flows.record import read_evaluation


def ending(folder: Path, repository: Path, run_id: str, *, offered: bool, idle: bool) -> Ending:
    """Gather it.

    Args:
        folder: where the run worked: the repository, or a clone whose report is copied out of it.
        offered: the candidate was offered for promotion in this run.
        idle: there was nothing to do.
    """
    is_clone = folder != repository
    report = _report(Place(folder), offered)
    if report is not None and is_clone:
        kept = Place(repository).work / "reports" / f"{run_id}.html"
        kept.parent.mkdir(parents=True, exist_ok=True)
        report = Path(shutil.copy(report, kept))
    policy = Place(folder).selection / "policy"
    return Ending(
        run_id=run_id,
        idle=_idle(Place(folder)) if idle else None,
        verdict=Verdict.read(Place(folder).promotion) if offered else None,
        warnings=_warnings(Place(folder)),
        report=report.relative_to(repository) if report is not None else None,
        model=policy.relative_to(repository) if policy.exists() and not is_clone else None,
        before=read_evaluation(repository) if is_clone else None,
    )


def _idle(place: Place) -> str:
    name = load_params(place.params).promotion.registered_model
    champion = version_at(name, CHAMPION)
    stands = f"{title(champion)} is the champion" if champion else f"{name} has no champion yet"
    return f"nothing has changed since these results were made; {stands}"


def _report(place: Place, offered: bool) -> Path | None:
    """Promotion's where it has one, else the evaluation's."""
    folders = [place.promotion, place.evaluation] if offered else [place.evaluation]
    return next((page for folder in folders if (page := folder / "report.html").exists()), None)


def _warnings(place: Place) -> list[str]:
    """What the held-out responses tell of the policies that gave them."""
    records, sft = place.evaluation / "records.jsonl", place.sft / "metrics.json"
    if not records.exists() or not sft.exists():
        return []
    vocabulary = int(read_json(sft)["vocabulary"])
    names = {"sft": "the SFT policy", "candidate": "the candidate"}
    return [
        warning
        for policy, rows in read_records(records).items()
        for warning in warnings(names.get(policy, policy), signs_of(rows), vocabulary)
    ]
