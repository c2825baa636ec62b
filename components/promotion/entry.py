"""The candidate's entry in the registry: what a version says of itself, and the one place that writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from components.artifacts import read_json
from components.config import Params
from components.measuring.metrics import Metric
from components.promotion.candidate import on_its_own
from components.promotion.card import attach_card
from components.promotion.decision import Decision
from components.promotion.floors import SUITES, by_suite, floor_line
from components.promotion.report import NOT_ASKED, description
from components.promotion.verdict import measured_nothing
from components.tracking.dvc_files import locked_outputs
from components.tracking.history import RunRecord
from components.tracking.recorder import StageRun
from components.tracking.registration import register
from components.tracking.registry import (
    CANDIDATE,
    PROMOTION_RUN,
    ModelVersion,
    describe,
    set_alias,
    set_tags,
)

_OF_A_DECISION = {"suites": "none", "approval": NOT_ASKED}  # tags that not every decision writes
_PROVENANCE = ("git_commit", "git_dirty", "data_md5", "params_sha256", "prefect_flow_run_id", "parent_run_id")


def enter(
    params: Params,
    policy: Path,
    known: ModelVersion | None,
    tags: Mapping[str, str],
    metric: Metric,
    tracked: StageRun,
    figures: Mapping[str, float],
    root: Path,
) -> ModelVersion:
    """Register the candidate, or write its new tags where it is known, and point the alias `candidate` to it.

    Args:
        known: the version that has these files.
        figures: by which MLflow compares models.
        root: of the repository.
    """
    if known is not None:  # it is decided anew, and keeps nothing of before
        tags = {name: value for name, value in _OF_A_DECISION.items() if name in known.tags} | dict(tags)
    told = description(tags, metric, tracked.page())
    if known is None:
        name, run = params.promotion.registered_model, tracked.pipeline.run_id
        with on_its_own(policy) as whole:
            version = register(tracked.run_id, name, whole, tags, _answering(params), told, figures, run)
    else:
        kept = {name: value for name, value in known.tags.items() if not name.startswith(SUITES)}
        version = replace(known, tags=kept | dict(tags))
        set_tags(version, tags)
        describe(known, told)
    attach_card(version, root)
    set_alias(version, CANDIDATE)
    return version


def tags_of(record: RunRecord, decision: Decision, selection: Path, lock: Path) -> dict[str, str]:
    """What a version says of itself: figures, origin, and the checkpoints of the cycles by reference."""
    checkpoints = {
        f"checkpoint:{path}": value
        for outputs in locked_outputs(lock).values()
        for path, value in outputs.items()
        if path.startswith("artifacts/alignment/") and path.endswith("/policy")
    }
    suites = "; ".join(floor_line(name, figures) for name, figures in by_suite(decision.figures).items())
    return {
        **measured_nothing(),
        **{name: f"{value:.4f}" for name, value in decision.figures.items()},
        **({"suites": suites} if suites else {}),
        "reasons": "; ".join(decision.reasons) or "none",
        "cycle": str(read_json(selection)["cycle"]),
        PROMOTION_RUN: record.run_id,
        **{name: record.tags[name] for name in _PROVENANCE if name in record.tags},
        **{f"in:{path}": value for path, value in record.inputs.items()},
        **checkpoints,
    }


def _answering(params: Params) -> dict[str, float | int]:
    return {
        "temperature": params.measurement.temperature,
        "seed": params.seed,
        "max_response_tokens": params.language_model.max_response_tokens,
    }
