"""What a decision rests on: the evaluation's records, the opponent measured beside them, the scorers' own quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from components.artifacts import read_json
from components.config import Params
from components.data.rows import Prompt, read_rows
from components.errors import ArtifactError
from components.measuring.metrics import JUDGE, metric_that_counts
from components.measuring.records import Record, prompt_means, read_records
from components.measuring.weak_scorers import unmeasured, weakness
from components.place import ModelFolders
from components.promotion.champion import fetched, measure_champion
from components.promotion.decision import Decision, Limits, decide, refuse_too_few, with_floors
from components.promotion.floors import Floor, floor_of
from components.promotion.suites import measure_suites
from components.tracking.registry import ModelVersion


class Inputs(NamedTuple):
    """What a promotion reads; `page` is the evaluation's, on which the decision is shown and does not rest.

    Args:
        files: hold what the parts of the scorers name; `suites`: the prompts and checkers of suites.
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
    suites: tuple[Path, ...] = ()

    @property
    def quality(self) -> dict[str, dict[str, float]]:
        """The metrics of both scorers, by names for people."""
        return {"reward model": read_json(self.reward_model_metrics), "judge": read_json(self.judge_metrics)}

    def weak_scorers(self) -> dict[str, str]:
        """The scorers that lose to a rule without a model, with what there is to say of each."""
        said = {scorer: weakness(scorer, metrics) for scorer, metrics in self.quality.items()}
        return {scorer: weak for scorer, weak in said.items() if weak}

    def unmeasured_scorers(self) -> list[str]:
        """What there is to say of scorers that nobody could measure."""
        return [said for scorer, metrics in self.quality.items() if (said := unmeasured(scorer, metrics))]


def weigh(
    params: Params,
    inputs: Inputs,
    records: Mapping[str, list[Record]],
    champion: ModelVersion | None,
    limits: Limits,
    root: Path,
    start: Callable[[], None],
) -> Decision:
    """Hold the candidate against the champion, or the SFT policy where there is none.

    Args:
        root: of the repository, where the suites' files are.
        start: called before anything is measured, and only then: it loads what computes.

    Raises:
        ArtifactError: the champion's files are gone or damaged.
        ConfigError: a suite's checker fails.
    """
    candidate, sft = records["candidate"], records["sft"]
    too_few = refuse_too_few(candidate, params.promotion.min_prompts)
    if too_few is not None:  # before anything is measured: it could not change the answer
        return too_few
    if champion is not None or params.promotion.suites:
        start()
    with ExitStack() as opened:
        if champion is None:
            opponent, means = inputs.frozen.reference, prompt_means(sft, limits.metric.name)
        else:
            opponent = opened.enter_context(fetched(champion))
            rows = read_rows(inputs.prompts, Prompt)
            means = measure_champion(opponent, inputs.frozen, params.shared, candidate, rows, limits.metric)
        decision = decide(candidate, means, sft, limits)
        decision = with_floors(decision, _floors(params, inputs.candidate, opponent, root))
    weak = inputs.weak_scorers()
    if "judge" in weak and limits.metric is JUDGE and not params.promotion.allow_weak_judge:
        refusal = f"{weak['judge']}, and it decides here (promotion.allow_weak_judge)"
        return replace(decision, promoted=False, reasons=(*decision.reasons, refusal))
    return decision


def _floors(params: Params, candidate: Path, opponent: Path, root: Path) -> list[Floor]:
    suites = params.promotion.suites
    if not suites:
        return []
    new, old = (measure_suites(policy, suites, params.shared, root) for policy in (candidate, opponent))
    confidence = params.evaluation.confidence
    return [
        floor_of(name, new[name], old[name], max_fall=suite.max_fall, confidence=confidence)
        for name, suite in suites.items()
    ]


def read_evidence(params: Params, path: Path) -> dict[str, list[Record]]:
    """The records of SFT policy and candidate.

    Raises:
        ArtifactError: they are of another rubric, or one of the two is not there.
    """
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
