"""The door of the stage: decide on the candidate, register it, and move the alias `champion` if it won.

Not a stage of DVC: its result is in MLflow's registry, which DVC does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from components.artifacts import read_json
from components.config import Params
from components.data.rows import Prompt, read_rows
from components.digests import digest, digest_of_values
from components.errors import ArtifactError
from components.measuring.metrics import JUDGE, metric_that_counts
from components.measuring.records import Record, prompt_means, read_records
from components.measuring.weak_scorers import unmeasured, weakness
from components.place import ModelFolders
from components.promotion.candidate import on_its_own
from components.promotion.champion import measure_champion
from components.promotion.decision import (
    Decision,
    Limits,
    decide,
    percent,
    refuse_too_few,
)
from components.promotion.page import PAGE, write_page
from components.promotion.report import description, opponent, report
from components.promotion.verdict import ALREADY_CHAMPION, ALREADY_REFUSED, PROMOTED, REFUSED, Verdict
from components.reports.page import page_with_slot
from components.tracking.attachments import attach
from components.tracking.dvc_files import locked_outputs
from components.tracking.history import RunRecord, get_run
from components.tracking.provenance import flatten
from components.tracking.recorder import StageRun
from components.tracking.registration import register
from components.tracking.registry import (
    CANDIDATE,
    CHAMPION,
    DECISIONS_ON,
    POLICY_DIGEST,
    PROMOTION_RUN,
    ModelVersion,
    decisions_on,
    describe,
    set_alias,
    set_tags,
    version_at,
    version_of_policy,
)

_MEASURED = ("gain", "gain_low", "gain_high", "gain_low_asked", "kl", "length_ratio")
_PROVENANCE = ("git_commit", "git_dirty", "data_md5", "params_sha256", "prefect_flow_run_id", "parent_run_id")


class Inputs(NamedTuple):
    """What a promotion reads; `page` is the evaluation's, on which the decision is shown and does not rest.

    Args:
        files: hold what the parts of the scorers name.
    """

    candidate: Path
    selection: Path
    records: Path
    prompts: Path
    frozen: ModelFolders
    reward_model_metrics: Path
    judge_metrics: Path
    page: Path
    files: tuple[Path, ...] = ()


def run(
    params: Params, inputs: Inputs, tracked: StageRun, *, folder: Path, lock: Path, start: Callable[[], None]
) -> None:
    """Register the candidate and promote it, or say why not.

    Nothing is decided twice: a candidate that is the champion, or was refused before on the same grounds, is
    only reported, and no version is added.

    Args:
        folder: where the `Verdict` is kept, and the page that shows it.
        lock: dvc.lock, which names the checkpoints of all cycles.
        start: called before a champion is measured, and only then: it loads what computes.

    Raises:
        ArtifactError: an output of an earlier stage, or the champion's files, are absent or corrupt.
    """
    evaluation = page_with_slot(inputs.page)
    champion = version_at(params.promotion.registered_model, CHAMPION)
    verdict = _promote(params, inputs, tracked, lock, start)
    for run in (tracked, tracked.pipeline):
        run.tags(verdict.tags())
    verdict.write(folder)
    _show(params, evaluation, tracked, folder, verdict, champion)


def _show(
    params: Params, evaluation: str, tracked: StageRun, folder: Path, verdict: Verdict, champion: ModelVersion | None
) -> None:
    """Write the page, and keep it in this run and in the pipeline's."""
    version, record = version_at(params.promotion.registered_model, CANDIDATE), get_run(tracked.run_id)
    assert version is not None and record is not None, "both were written a moment ago"
    values = flatten(params.values())
    page = write_page(evaluation, folder, verdict, version, champion, record, params.promotion, values)
    tracked.artifact(page)
    if parent := record.tags.get("parent_run_id"):
        attach(parent, page)


def _promote(params: Params, inputs: Inputs, tracked: StageRun, lock: Path, start: Callable[[], None]) -> Verdict:
    name, policy_digest = params.promotion.registered_model, digest(inputs.candidate)
    champion, known = version_at(name, CHAMPION), version_of_policy(name, policy_digest)
    champion_digest = champion.tags.get(POLICY_DIGEST, f"version {champion.number}") if champion else None
    if champion is not None and champion_digest == policy_digest:
        set_alias(champion, CANDIDATE)
        print(f"already champion: {name} version {champion.number} is this policy", flush=True)
        return Verdict(ALREADY_CHAMPION, name, champion.number, champion.tags["opponent"])

    record = get_run(tracked.run_id)
    assert record is not None, "the run was opened a moment ago"
    origin = {key: record.tags[key] for key in ("git_commit", "params_sha256")}
    looked_at = {path: value for path, value in record.inputs.items() if not path.endswith(f"/{PAGE}")}
    grounds = digest_of_values([looked_at, origin, champion_digest])
    if known is not None and known.tags.get("grounds") == grounds and known.tags["decision"] == REFUSED:
        set_alias(known, CANDIDATE)
        print(f"already refused: {name} version {known.number}: {known.tags['reasons']}", flush=True)
        return Verdict(ALREADY_REFUSED, name, known.number, known.tags["opponent"], (known.tags["reasons"],))

    weak = _weak_scorers(inputs)
    split = digest(inputs.prompts)
    records = _records(params, inputs.records)
    metric = metric_that_counts(records["candidate"][0].rubric)
    limits = Limits(
        metric=metric,
        max_kl=params.promotion.max_kl_nats_per_sequence,
        max_length_ratio=params.promotion.max_length_ratio,
        attempt=1 + decisions_on(name, split),
        confidence=params.evaluation.confidence,
    )
    decision = _decide(params, inputs, records, champion, limits, start)
    if "judge" in weak and metric is JUDGE and not params.promotion.allow_weak_judge:
        refusal = f"{weak['judge']}, and it decides here (promotion.allow_weak_judge)"
        decision = replace(decision, promoted=False, reasons=(*decision.reasons, refusal))
    figures = {name: value for name, value in decision.figures.items() if not name.startswith("gain_")}
    tracked.metrics({f"promotion/{name}": value for name, value in figures.items()})
    outcome = PROMOTED if decision.promoted else REFUSED
    tags = {
        "decision": outcome,
        "opponent": opponent(champion),
        **_tags(record, decision, inputs.selection, lock),
        "grounds": grounds,
        "weak_scorers": "; ".join(weak.values()) or "none",
        "try": f"{limits.attempt} on these test prompts, decided at {percent(limits.asked)}",
        DECISIONS_ON + split: str(1 + int(known.tags.get(DECISIONS_ON + split, 0) if known else 0)),
        POLICY_DIGEST: policy_digest,
    }
    told = description(tags, metric, tracked.page())
    if known is None:
        with on_its_own(inputs.candidate) as policy:
            answering, run = _answering(params), tracked.pipeline.run_id
            version = register(tracked.run_id, name, policy, tags, answering, told, figures, run)
    else:
        version = known
        set_tags(known, tags)
        describe(known, told)
    set_alias(version, CANDIDATE)
    if decision.promoted:
        _require_same_champion(name, champion)
        set_alias(version, CHAMPION)
    report(limits, version, champion, decision)
    for unknown in filter(None, (unmeasured(scorer, metrics) for scorer, metrics in _quality(inputs).items())):
        print(f"  note: {unknown}", flush=True)
    for warning in weak.values():
        if not any(reason.startswith(warning) for reason in decision.reasons):
            print(f"  warning: {warning}", flush=True)
    return Verdict(outcome, name, version.number, opponent(champion), decision.reasons, metric.name, decision.figures)


def _weak_scorers(inputs: Inputs) -> dict[str, str]:
    """The scorers that lose to a rule without a model, with what there is to say of each."""
    said = {scorer: weakness(scorer, metrics) for scorer, metrics in _quality(inputs).items()}
    return {scorer: weak for scorer, weak in said.items() if weak}


def _quality(inputs: Inputs) -> dict[str, dict[str, float]]:
    """The metrics of both scorers, by names for people."""
    return {"reward model": read_json(inputs.reward_model_metrics), "judge": read_json(inputs.judge_metrics)}


def _decide(
    params: Params,
    inputs: Inputs,
    records: Mapping[str, list[Record]],
    champion: ModelVersion | None,
    limits: Limits,
    start: Callable[[], None],
) -> Decision:
    candidate, sft = records["candidate"], records["sft"]
    too_few = refuse_too_few(candidate, params.promotion.min_prompts)
    if too_few is not None:  # before the champion is measured: it could not change the answer
        return too_few
    if champion is None:
        return decide(candidate, prompt_means(sft, limits.metric.name), sft, limits)
    start()
    rows = read_rows(inputs.prompts, Prompt)
    means = measure_champion(champion, inputs.frozen, params.shared, candidate, rows, limits.metric)
    return decide(candidate, means, sft, limits)


def _records(params: Params, path: Path) -> dict[str, list[Record]]:
    records = read_records(path)
    for policy in ("sft", "candidate"):
        if policy not in records:
            raise _refusal(path, "the evaluation has no records of a policy", f"rows with policy {policy!r}", "none")
    if (metric_that_counts(records["candidate"][0].rubric) is JUDGE) != (params.data.rubric is None):
        found = f"data.rubric is {'null' if params.data.rubric is None else params.data.rubric} now"
        raise _refusal(path, "the records were measured with another rubric", "those of the present params", found)
    return records


def _refusal(path: Path, what: str, expected: str, found: str) -> ArtifactError:
    do = "run `dvc repro --force evaluation`"
    return ArtifactError(what, where=str(path), expected=expected, found=found, do=do)


def _tags(record: RunRecord, decision: Decision, selection: Path, lock: Path) -> dict[str, str]:
    """What a version says of itself: figures, origin, and the checkpoints of the cycles by reference."""
    checkpoints = {
        f"checkpoint:{path}": value
        for outputs in locked_outputs(lock).values()
        for path, value in outputs.items()
        if path.startswith("artifacts/alignment/") and path.endswith("/policy")
    }
    return {
        **dict.fromkeys(_MEASURED, "not measured"),  # a version that is decided anew keeps no figure of before
        **{name: f"{value:.4f}" for name, value in decision.figures.items()},
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


def _require_same_champion(name: str, champion: ModelVersion | None) -> None:
    """Refuse to dethrone a champion that another run made while this one was deciding."""
    now = version_at(name, CHAMPION)
    if (now and now.number) != (champion and champion.number):
        raise ArtifactError(
            "the champion changed while the candidate was compared with it",
            where=f"{name}@{CHAMPION}",
            expected=opponent(champion),
            found=opponent(now),
            do="promote again: `python -m components.launch promotion`",
        )
