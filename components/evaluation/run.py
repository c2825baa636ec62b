"""The door of the stage: measure both policies on the held-out prompts and write down what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.artifacts import atomic_folder, read_json, write_json
from components.config import Params
from components.data.rows import Prompt, read_rows
from components.evaluation import figures
from components.evaluation.curves import standardised, training_rows
from components.evaluation.report import Findings, render
from components.evaluation.samples import before_and_after
from components.measuring.compare import Comparison, compare, compare_by_kind, flat, headline
from components.measuring.metrics import parts_among
from components.measuring.records import Record, write_records
from components.measuring.rubric import load_rubric
from components.paths import ALIGNMENT, CLEAN, DATA_VALIDATION, EVALUATION, JUDGE, REWARD_MODEL, SELECTION, SFT
from components.tracking import stage_run

TEST_PROMPTS = CLEAN / "prompts_test.jsonl"
POLICIES = {"sft": SFT / "policy", "candidate": SELECTION / "policy"}
SCORERS = {"Reward model": REWARD_MODEL, "Judge": JUDGE}
FIGURES = ("over_optimisation", "training", "calibration")


def run(params: Params) -> None:
    """Write artifacts/evaluation; see `write_evaluation`.

    Raises:
        ArtifactError, DataError: an output of an earlier stage is absent or corrupt.
    """
    from components.measuring.measure import TEST_STREAM, measure_policy
    from components.models.cuts import cut_fractions
    from components.models.loading import load_codec

    with stage_run("evaluation", params, inputs=inputs(params)) as tracked:
        tracked.dataset("prompts_test", TEST_PROMPTS)
        prompts = read_rows(TEST_PROMPTS, Prompt)
        samples = params.measurement.test_samples_per_prompt
        cut = cut_fractions(load_codec(POLICIES["sft"]), "evaluation", [row.prompt for row in prompts])
        records = {
            policy: measure_policy(folder, params, prompts, samples, TEST_STREAM) for policy, folder in POLICIES.items()
        }
        comparison = write_evaluation(params, records["sft"], records["candidate"])
        tracked.metrics(flat(comparison) | {f"test/{name}": value for name, value in cut.items()})
        tracked.table("samples.json", read_json(EVALUATION / "samples.json"))
        for name in FIGURES:
            tracked.figure(EVALUATION / "plots" / f"{name}.png")
        for name in ("report.html", "metrics.json", "by_kind.json"):
            tracked.artifact(EVALUATION / name)
        tracked.outputs(sorted(EVALUATION.iterdir()))


def inputs(params: Params) -> list[Path]:
    """Every file and folder that the stage reads: the `deps` of the stage in dvc.yaml."""
    parts = ("model", "metrics.json", "calibration.json")
    scorers = [folder / part for folder in SCORERS.values() for part in parts]
    curves = [ALIGNMENT / cycle / "curve.json" for cycle in params.cycles]
    selection = [SELECTION / name for name in ("selection.json", "cycles.json")]
    return [TEST_PROMPTS, DATA_VALIDATION / "report.json", *POLICIES.values(), *scorers, *curves, *selection]


def write_evaluation(params: Params, sft: Sequence[Record], candidate: Sequence[Record]) -> Comparison:
    """Turn the records of both policies into artifacts/evaluation and return the comparison.

    records.jsonl (with the column `policy`), metrics.json (the comparison), by_kind.json (the same for each
    kind of prompt), summary.json (its means alone), samples.json, plots/ and report.html.
    """
    settings = params.evaluation
    selection, cycles = read_json(SELECTION / "selection.json"), read_json(SELECTION / "cycles.json")
    training = training_rows(ALIGNMENT, [int(cycle) for cycle in params.cycles])
    comparison, rubric = compare(sft, candidate, settings), load_rubric(params.data)
    findings = Findings(
        comparison=comparison,
        by_kind=compare_by_kind(sft, candidate, settings),
        samples=before_and_after(sft, candidate, settings.shown_samples, params.seed),
        cycles=cycles,
        selection=selection,
        scorers={name: read_json(folder / "metrics.json") for name, folder in SCORERS.items()},
        data=read_json(DATA_VALIDATION / "report.json"),
        # What comes after this stage has no part in it, and must not make it run again.
        params=params.values(without=["promotion"]),
        prompts=len({record.prompt_id for record in sft}),
        meanings=rubric.meanings if rubric else {},
        samples_per_prompt=params.measurement.test_samples_per_prompt,
    )
    with atomic_folder(EVALUATION) as folder:
        plots = folder / "plots"
        plots.mkdir()
        drawn = {name: plots / f"{name}.png" for name in FIGURES}
        ceiling, parts = selection["max_kl_nats_per_sequence"], parts_among(comparison["difference"])
        figures.over_optimisation(drawn["over_optimisation"], cycles, selection["cycle"], ceiling, parts)
        figures.training_curves(drawn["training"], training, params.target_kl)
        tables = {name: read_json(place / "calibration.json") for name, place in SCORERS.items()}
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
