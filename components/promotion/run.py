"""The door of the stage: decide on the candidate, register it, and move the alias `champion` if it won.

Not a stage of DVC: its result is in MLflow's registry, which DVC does not see.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from components.config import Params
from components.digests import digest, digest_of_values
from components.measuring.metrics import metric_that_counts
from components.promotion.approval import awaiting, is_open, question
from components.promotion.champions import A_RUN, champion_of, crown, heal, require_same_champion, why_blocked
from components.promotion.decision import Decision, Limits, percent
from components.promotion.entry import enter, tags_of
from components.promotion.evidence import Inputs, read_evidence, weigh
from components.promotion.page import PAGE, write_page
from components.promotion.report import opponent, report, title
from components.promotion.verdict import (
    ALREADY_ASKED,
    ALREADY_CHAMPION,
    ALREADY_REFUSED,
    AWAITING,
    BLOCKED,
    PROMOTED,
    REFUSED,
    Verdict,
)
from components.reports.page import page_with_slot
from components.tracking.attachments import attach
from components.tracking.history import RunRecord, get_run
from components.tracking.moves import PROMOTED as BY_A_RUN
from components.tracking.provenance import flatten
from components.tracking.recorder import StageRun
from components.tracking.registry import (
    CANDIDATE,
    DECISIONS_ON,
    POLICY_DIGEST,
    ModelVersion,
    decisions_on,
    set_alias,
    set_tags,
    version_at,
    version_of_policy,
)

__all__ = ["Inputs", "run"]


def run(
    params: Params, inputs: Inputs, tracked: StageRun, *, folder: Path, lock: Path, start: Callable[[], None]
) -> None:
    """Register the candidate and promote it, ask people to approve it, or say why not.

    Nothing is decided twice: a candidate that is the champion, was refused before on the same grounds, or waits for an
    answer, is only reported, and no version is added.

    Args:
        folder: where the `Verdict` is kept, and the page that shows it.
        lock: dvc.lock, which names the checkpoints of all cycles.
        start: called before a policy is measured, and only then: it loads what computes.

    Raises:
        ArtifactError: an output of an earlier stage, the champion or its files are absent or corrupt.
    """
    evaluation = page_with_slot(inputs.page)
    champion = champion_of(params.promotion.registered_model)
    verdict = _promote(params, inputs, tracked, champion, lock, start)
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


def _promote(
    params: Params,
    inputs: Inputs,
    tracked: StageRun,
    champion: ModelVersion | None,
    lock: Path,
    start: Callable[[], None],
) -> Verdict:
    name, policy_digest = params.promotion.registered_model, digest(inputs.candidate)
    known, record = version_of_policy(name, policy_digest), get_run(tracked.run_id)
    assert record is not None, "the run was opened a moment ago"
    if champion is not None:
        heal(champion)
    champion_digest = champion.tags.get(POLICY_DIGEST, f"version {champion.number}") if champion else None
    origin = {key: record.tags[key] for key in ("git_commit", "params_sha256")}
    looked_at = {path: value for path, value in record.inputs.items() if not path.endswith(f"/{PAGE}")}
    grounds = digest_of_values([looked_at, origin, champion_digest])
    blocked = why_blocked(name, policy_digest)
    if known is not None:
        decided = _decided_before(params, known, champion, grounds, blocked, record)
        if decided is not None:
            set_alias(known, CANDIDATE)
            return decided

    records, split = read_evidence(params, inputs.records), digest(inputs.prompts)
    metric, weak = metric_that_counts(records["candidate"][0].rubric), inputs.weak_scorers()
    limits = Limits(
        metric=metric,
        max_kl=params.promotion.max_kl_nats_per_sequence,
        max_length_ratio=params.promotion.max_length_ratio,
        attempt=1 + decisions_on(name, split),
        confidence=params.evaluation.confidence,
    )
    if blocked:  # and its version was deleted
        decision = Decision(False, (blocked,), {})
    else:
        decision = weigh(params, inputs, records, champion, limits, lock.parent, start)
    figures = {name: value for name, value in decision.figures.items() if not name.startswith("gain_")}
    tracked.metrics({f"promotion/{name}": value for name, value in figures.items()})
    is_asked = decision.promoted and params.orchestration.approval.required
    outcome = AWAITING if is_asked else PROMOTED if decision.promoted else REFUSED
    counted = 0 if blocked else 1
    tags = {
        "decision": outcome,
        "opponent": opponent(champion),
        **tags_of(record, decision, inputs.selection, lock),
        "grounds": grounds,
        "weak_scorers": "; ".join(weak.values()) or "none",
        "try": f"{limits.attempt} on these test prompts, decided at {percent(limits.asked)}",
        DECISIONS_ON + split: str(counted + int(known.tags.get(DECISIONS_ON + split, 0) if known else 0)),
        POLICY_DIGEST: policy_digest,
        **(question(params.orchestration.approval, record.tags.get("prefect_flow_run_id", "")) if is_asked else {}),
    }
    version = enter(params, inputs.candidate, known, tags, metric, tracked, figures, lock.parent)
    if outcome == PROMOTED:
        require_same_champion(name, opponent(champion), "compared")
        crown(version, BY_A_RUN, A_RUN, f"against {opponent(champion)}")
    report(limits, version, champion, decision, asked=is_asked)
    for unknown in inputs.unmeasured_scorers():
        print(f"  note: {unknown}", flush=True)
    for warning in weak.values():
        if not any(reason.startswith(warning) for reason in decision.reasons):
            print(f"  warning: {warning}", flush=True)
    if is_asked:
        return awaiting(version)
    return Verdict(outcome, name, version.number, opponent(champion), decision.reasons, metric.name, decision.figures)


def _decided_before(
    params: Params,
    known: ModelVersion,
    champion: ModelVersion | None,
    grounds: str,
    blocked: str | None,
    record: RunRecord,
) -> Verdict | None:
    """The verdict on a version on which nothing is decided anew; None where something is."""
    tags, who, on_these = known.tags, title(known), known.tags.get("grounds") == grounds
    if champion is not None and champion.tags.get(POLICY_DIGEST) == tags[POLICY_DIGEST]:
        print(f"already champion: {title(champion)} is this policy", flush=True)
        return Verdict(ALREADY_CHAMPION, champion.name, champion.number, champion.tags["opponent"])
    if blocked:
        print(f"already rolled back: {who}: {blocked}", flush=True)
        return Verdict(BLOCKED, known.name, known.number, opponent(champion), (blocked,))
    if on_these and tags["decision"] == REFUSED:
        print(f"already refused: {who}: {tags['reasons']}", flush=True)
        return Verdict(ALREADY_REFUSED, known.name, known.number, tags["opponent"], (tags["reasons"],))
    if on_these and tags["decision"] == AWAITING:
        if is_open(tags):
            print(f"already awaiting approval: {who}", flush=True)
            return awaiting(known, ALREADY_ASKED)
        asked = question(params.orchestration.approval, record.tags.get("prefect_flow_run_id", ""))
        set_tags(known, asked)
        print(f"awaiting approval again, nobody answered in time: {who}", flush=True)
        return awaiting(ModelVersion(known.name, known.number, known.run_id, tags | asked, known.aliases))
    return None
