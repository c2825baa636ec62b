"""The door of the stage: measure both policies on the held-out prompts and write down what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from components.artifacts import atomic_folder, read_json, write_json
from components.config import Params
from components.data.rows import Prompt, read_rows
from components.evaluation import figures
from components.evaluation.curves import standardised, training_rows
from components.evaluation.recording import description, pair_rows, record_curves, record_figures
from components.evaluation.report import Findings, render
from components.evaluation.samples import before_and_after
from components.measuring.compare import Comparison, compare, compare_by_kind, headline
from components.measuring.health import warn
from components.measuring.measure import TEST_STREAM, measure_policy
from components.measuring.metrics import parts_among
from components.measuring.records import Record, signs_of, write_records
from components.measuring.rubric import load_rubric
from components.models.cuts import cut_fractions
from components.models.loading import load_codec
from components.place import ModelFolders
from components.tracking import StageRun

FIGURES = ("over_optimisation", "training", "calibration")


class ScorerFiles(NamedTuple):
    """What the stage of a scorer leaves."""

    model: Path
    metrics: Path
    calibration: Path


class Inputs(NamedTuple):
    """What an evaluation reads; `curves` are those of all cycles, `cycles` is the table that selection went by."""

    prompts: Path
    data_report: Path
    sft: Path
    candidate: Path
    reward_model: ScorerFiles
    judge: ScorerFiles
    curves: tuple[Path, ...]
    selection: Path
    cycles: Path

    @property
    def frozen(self) -> ModelFolders:
        """The models that both policies are measured with."""
        return ModelFolders(self.sft, self.reward_model.model, self.judge.model)

    @property
    def scorers(self) -> dict[str, ScorerFiles]:
        """By the names that people see."""
        return {"Reward model": self.reward_model, "Judge": self.judge}


def run(params: Params, inputs: Inputs, out: Path, tracked: StageRun) -> None:
    """Measure both policies on the held-out prompts and write `out`; see `write_evaluation`.

    Args:
        params: all of them: the report shows them.

    Raises:
        ArtifactError, DataError: an output of an earlier stage is absent or corrupt.
    """
    for run in (tracked, tracked.pipeline):
        run.dataset("prompts_test", inputs.prompts)
    prompts = read_rows(inputs.prompts, Prompt)
    codec = load_codec(inputs.sft)
    cut = cut_fractions(codec, "evaluation", [row.prompt for row in prompts])
    samples = params.measurement.test_samples_per_prompt
    sft, candidate = (
        measure_policy(policy, inputs.frozen, params.shared, prompts, samples, TEST_STREAM)
        for policy in (inputs.sft, inputs.candidate)
    )
    for whose, records in (("the SFT policy", sft), ("the candidate", candidate)):
        warn(whose, signs_of(records), len(codec.tokenizer))
    comparison = write_evaluation(params, inputs, out, sft, candidate)
    for run in (tracked, tracked.pipeline):
        record_figures(run, comparison)
    record_curves(tracked.pipeline, training_rows(inputs.curves), read_json(inputs.cycles))
    tracked.metrics({f"eval_more/{name}": value for name, value in cut.items()})
    tracked.table("samples.json", pair_rows(sft, candidate))
    for name in FIGURES:
        tracked.figure(out / "plots" / f"{name}.png")
    for name in ("report.html", "metrics.json", "by_kind.json"):
        tracked.artifact(out / name)
    for run in (tracked, tracked.pipeline):
        run.describe(description(comparison, None, tracked.page("report.html")))


def write_evaluation(
    params: Params, inputs: Inputs, out: Path, sft: Sequence[Record], candidate: Sequence[Record]
) -> Comparison:
    """Turn the records of both policies into the folder `out` and return the comparison.

    records.jsonl (with the column `policy`), metrics.json (the comparison), by_kind.json (the same for each
    kind of prompt), summary.json (its means alone), samples.json, plots/ and report.html.
    """
    settings = params.evaluation
    selection, cycles = read_json(inputs.selection), read_json(inputs.cycles)
    training = training_rows(inputs.curves)
    comparison, rubric = compare(sft, candidate, settings), load_rubric(params.data)
    findings = Findings(
        comparison=comparison,
        by_kind=compare_by_kind(sft, candidate, settings),
        samples=before_and_after(sft, candidate, settings.shown_samples, params.seed),
        cycles=cycles,
        selection=selection,
        scorers={name: read_json(files.metrics) for name, files in inputs.scorers.items()},
        data=read_json(inputs.data_report),
        # What comes after this stage has no part in it, and must not make it run again.
        params=params.values(without=["promotion"]),
        prompts=len({record.prompt_id for record in sft}),
        meanings=rubric.meanings if rubric else {},
        samples_per_prompt=params.measurement.test_samples_per_prompt,
    )
    with atomic_folder(out) as folder:
        plots = folder / "plots"
        plots.mkdir()
        drawn = {name: plots / f"{name}.png" for name in FIGURES}
        ceiling, parts = selection["max_kl_nats_per_sequence"], parts_among(comparison["difference"])
        figures.over_optimisation(drawn["over_optimisation"], cycles, selection["cycle"], ceiling, parts)
        figures.training_curves(drawn["training"], training, params.target_kl)
        tables = {name: read_json(files.calibration) for name, files in inputs.scorers.items()}
        figures.calibration(drawn["calibration"], tables)
        write_json(plots / "over_optimisation.json", standardised(cycles))
        write_json(plots / "training.json", training)
        write_records(folder / "records.jsonl", {"sft": sft, "candidate": candidate})
        write_json(folder / "metrics.json", comparison)
        write_json(folder / "by_kind.json", findings.by_kind)
        write_json(folder / "summary.json", headline(comparison))
        write_json(folder / "samples.json", findings.samples)
        (folder / "report.html").write_text(render(findings, drawn), encoding="utf-8")
    return comparison
