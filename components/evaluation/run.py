"""The door of the stage: measure both policies on the held-out prompts and write down what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from components.artifacts import atomic_folder, read_json, write_json
from components.config import Params
from components.data.rows import Prompt, read_rows
from components.digests import digest, digest_of_values
from components.evaluation import figures
from components.evaluation.curves import checks_of_cycles, standardised, training_rows
from components.evaluation.cycles import change_between, validation_records, with_intervals
from components.evaluation.model_size import model_size
from components.evaluation.recording import description, pair_rows, record_curves, record_figures
from components.evaluation.report import Findings, Picture, render
from components.evaluation.samples import all_pairs, drawn_by_lot
from components.evaluation.verdict import over_optimisation
from components.measuring.compare import Comparison, compare, compare_by_kind, headline, is_share
from components.measuring.health import warn
from components.measuring.measure import TEST_STREAM, measure_policy
from components.measuring.metrics import metrics_among, parts_among
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
    """What an evaluation reads.

    Args:
        curves: of all cycles; `validation`: what each of them was measured on; `checks`: what it checked of itself.
        cycles: the table that selection went by.
        files: hold what the parts of the scorers name.
    """

    prompts: Path
    data_report: Path
    sft: Path
    candidate: Path
    reward_model: ScorerFiles
    judge: ScorerFiles
    curves: tuple[Path, ...]
    validation: tuple[Path, ...]
    checks: tuple[Path, ...]
    selection: Path
    cycles: Path
    files: tuple[Path, ...] = ()

    @property
    def frozen(self) -> ModelFolders:
        """The models that both policies are measured with."""
        return ModelFolders(self.sft, self.reward_model.model, self.judge.model)

    @property
    def named(self) -> dict[str, Path]:
        """What the figures of the page come from, by names for people."""
        return {
            "Held-out prompts": self.prompts,
            "Report on the data": self.data_report,
            "SFT policy": self.sft,
            "Candidate policy": self.candidate,
            "Reward model": self.reward_model.model,
            "Judge": self.judge.model,
        }

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
    cut = cut_fractions(codec, "evaluation", [row.asked for row in prompts])
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
    settings, confidence = params.evaluation, params.evaluation.confidence
    selection, training = read_json(inputs.selection), training_rows(inputs.curves)
    validation = validation_records(inputs.validation)
    cycles = read_json(inputs.cycles)
    measured = with_intervals(cycles, validation, confidence)
    comparison, rubric = compare(sft, candidate, settings), load_rubric(params.data)
    pairs = all_pairs(sft, candidate)
    # What comes after this stage, and how a run is operated, has no part in it and must not make it run again.
    values = params.values(without=["promotion", "orchestration"])
    findings = Findings(
        comparison=comparison,
        by_kind=compare_by_kind(sft, candidate, settings),
        shares=frozenset(
            metric.name for metric in metrics_among(sft[0].numbers()) if is_share(metric, (*sft, *candidate))
        ),
        pairs=pairs,
        lot=drawn_by_lot(pairs, settings.shown_samples, params.seed),
        cycles=measured,
        over_optimisation=over_optimisation(cycles, change_between(validation, confidence)),
        selection=selection,
        scorers={name: read_json(files.metrics) for name, files in inputs.scorers.items()},
        self_checks=checks_of_cycles(inputs.checks),
        data=read_json(inputs.data_report),
        params=values,
        digests={name: digest(path) for name, path in inputs.named.items()} | {"Params": digest_of_values(values)},
        model=model_size(inputs.sft),
        prompts=len({record.prompt_id for record in sft}),
        meanings=rubric.meanings if rubric else {},
        samples_per_prompt=params.measurement.test_samples_per_prompt,
    )
    ceiling, parts = selection["max_kl_nats_per_sequence"], parts_among(comparison["difference"])
    tables = {name: read_json(files.calibration) for name, files in inputs.scorers.items()}
    drawings: dict[str, Callable[..., None]] = {
        "over_optimisation": partial(
            figures.over_optimisation, cycles=measured, chosen=selection["cycle"], max_kl=ceiling, parts=parts
        ),
        "training": partial(figures.training_curves, rows=training, target_kl=params.target_kl),
        "calibration": partial(figures.calibration, tables=tables, confidence=confidence),
    }
    pictures = {name: _picture(draw) for name, draw in drawings.items()}
    with atomic_folder(out) as folder:
        plots = folder / "plots"
        plots.mkdir()
        for name, picture in pictures.items():
            (plots / f"{name}.png").write_bytes(picture.wide)
        write_json(plots / "over_optimisation.json", standardised(cycles))
        write_json(plots / "training.json", training)
        write_records(folder / "records.jsonl", {"sft": sft, "candidate": candidate})
        write_json(folder / "metrics.json", comparison)
        write_json(folder / "by_kind.json", findings.by_kind)
        write_json(folder / "summary.json", headline(comparison))
        write_json(folder / "samples.json", findings.lot)
        (folder / "report.html").write_text(render(findings, pictures), encoding="utf-8")
    return comparison


def _picture(draw: Callable[..., None]) -> Picture:
    drawn = []
    for narrow in (False, True):
        png = BytesIO()
        draw(png, narrow=narrow)
        drawn.append(png.getvalue())
    return Picture(*drawn)
