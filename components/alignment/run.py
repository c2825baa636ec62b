"""One cycle as a stage: takes the last cycle's policy and gives the next one, measured; the method does the rest."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from components import paths
from components.alignment import work_folder
from components.alignment.loop import run_cycle
from components.alignment.method import CurveRow, Cycle, Job
from components.alignment.methods import room_of
from components.artifacts import atomic_folder, link_or_copy, read_json, recover_folder, write_json
from components.config import Params
from components.data.rows import Comparison, Prompt, read_rows
from components.errors import ConfigError
from components.measuring.measure import Yardsticks, measure
from components.measuring.records import Record, means
from components.models.cuts import cut_fractions, cut_fractions_of_pairs, distinct_pairs
from components.models.loading import load_policy
from components.tracking import stage_run
from components.training.accelerator import start_accelerator

COSTS = ("sampled_tokens", "trained_tokens")
_AFTERWARDS = ("cycles", "selection", "evaluation", "promotion")  # sections that no cycle reads


def run(params: Params, cycle: int) -> None:
    """Run cycle number `cycle` (from 1) and write artifacts/alignment/<cycle>/."""
    if str(cycle) not in params.cycles:
        raise ConfigError(
            "there is no such cycle",
            where="--cycle",
            expected=f"one of {', '.join(params.cycles)} (cycles in params.yaml)",
            found=str(cycle),
        )
    start = Path(params.cycles[str(cycle)].start)
    prompts_source, validation_source, comparisons_source = (
        paths.CLEAN / f"{name}.jsonl" for name in ("prompts_train", "prompts_validation", "comparisons_reward_model")
    )
    models = [paths.SFT / "policy", paths.REWARD_MODEL / "model", paths.JUDGE / "model"]
    carried = [part for name in ("policy", "state") if (part := start / name).exists()]
    inputs = list(dict.fromkeys([*carried, *models, prompts_source, validation_source, comparisons_source]))
    prompts, validation = read_rows(prompts_source, Prompt), read_rows(validation_source, Prompt)
    comparisons = read_rows(comparisons_source, Comparison)
    accelerator = start_accelerator()
    yardsticks = Yardsticks.load(accelerator.device)
    codec = yardsticks.codec
    room = room_of(params.method)
    if room.learns_from == "comparisons":
        cut = cut_fractions_of_pairs(codec, "alignment", comparisons)
        read = len(comparisons)
        comparisons = distinct_pairs(comparisons, codec, str(comparisons_source))
        cut["comparisons_cut_alike"] = read - len(comparisons)
    else:
        cut = cut_fractions(codec, "alignment", [row.prompt for row in prompts])
    content = work_folder.content(params.values(without=_AFTERWARDS), cycle, accelerator.mixed_precision, inputs)
    work = work_folder.path(cycle, content)
    if accelerator.is_main_process:
        recover_folder(work)
        work_folder.tell_of_others(cycle, content)
    accelerator.wait_for_everyone()

    with stage_run("alignment", params, inputs=inputs, cycle=cycle) as run:
        run.dataset("prompts", prompts_source)
        run.dataset("comparisons", comparisons_source)

        def log(row: CurveRow) -> None:
            run.metrics(
                {f"train/{name}": value for name, value in row.items() if name not in ("cycle", "iteration")},
                step=int(row["iteration"]),
            )

        def report(row: CurveRow) -> None:
            log(row)
            seconds_after[str(int(row["iteration"]))] = seconds_before + time.monotonic() - began
            work_folder.write_record(work, content, seconds_after)

        # An interrupted cycle goes on: its run tells of the iterations before too, and of what they took.
        done: list[CurveRow] = list(read_json(work / "curve.json")) if work.exists() else []
        for row in done if accelerator.is_main_process else []:
            log(row)
        seconds_after = work_folder.seconds_after(work)
        seconds_before = seconds_after.get(str(int(done[-1]["iteration"])), 0.0) if done else 0.0
        began = time.monotonic()
        run_cycle(
            room.start,
            Job(accelerator, params, Cycle(cycle, start, work, prompts, comparisons, report), yardsticks),
        )
        seconds = seconds_before + time.monotonic() - began
        if accelerator.is_main_process:
            records = _validate(work / "policy", yardsticks, params, validation)
            curve = read_json(work / "curve.json")
            cost = {name: sum(row[name] for row in curve) for name in COSTS}
            metrics = {"validation": means(records), "cost": cost, "cut": cut}
            if cycle == 1:  # where the curves begin: the SFT policy, measured alike
                metrics["validation_start"] = means(_validate(start / "policy", yardsticks, params, validation))
            folder = paths.ALIGNMENT / str(cycle)
            with atomic_folder(folder) as scratch:
                # The last iteration's checkpoint is the result. Not moved, so that a failure here loses nothing.
                shutil.copytree(work, scratch, copy_function=link_or_copy, dirs_exist_ok=True)
                write_json(scratch / "metrics.json", metrics)
            work_folder.remove_all(cycle)
            run.metrics({f"validation/{name}": value for name, value in metrics["validation"].items()}, step=cycle)
            run.metrics({"cost/seconds": seconds} | {f"cost/{name}": value for name, value in cost.items()}, step=cycle)
            run.table("validation_samples.json", [row.columns() for row in records[:: max(1, len(records) // 20)]])
            run.outputs(sorted(folder.iterdir()))


def _validate(policy: Path, yardsticks: Yardsticks, params: Params, prompts: list[Prompt]) -> list[Record]:
    samples = params.measurement.validation_samples_per_prompt
    device = next(yardsticks.reference.parameters()).device
    return measure(load_policy(policy).to(device), yardsticks, params, prompts, samples, "validation")
