"""One cycle as a stage: takes the last cycle's policy and gives the next one, measured; the method does the rest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from components.alignment import resumption
from components.alignment.loop import OPTIMIZER, run_cycle
from components.alignment.method import CurveRow, Cycle, Job
from components.alignment.methods import room_of
from components.artifacts import atomic_folder, link_or_copy, read_json, write_json
from components.config import Compute, Method, MethodSettings, Shared
from components.data.rows import Comparison, Prompt, read_rows
from components.errors import DataError
from components.measuring.health import warn
from components.measuring.measure import FrozenModels, measure
from components.measuring.records import Record, means, signs_of, write_records
from components.models.chat_check import require_sound_template
from components.models.cuts import cut_fractions, cut_fractions_of_pairs, distinct_pairs
from components.models.loading import load_policy
from components.place import ModelFolders
from components.self_checks import Checks
from components.tracking import StageRun
from components.training.accelerator import start_accelerator
from components.work_folder import Work, ended, without_requests

COSTS = ("sampled_tokens", "trained_tokens")


class Inputs(NamedTuple):
    """What a cycle reads.

    Args:
        policy: what it begins with.
        state: what the cycle before left beside that policy, to go on with; None in the first cycle.
        files: hold what the parts of the scorers name.
    """

    policy: Path
    state: Path | None
    reference: Path
    reward_model: Path
    judge: Path
    prompts: Path
    validation: Path
    comparisons: Path
    files: tuple[Path, ...] = ()


def run(
    settings: MethodSettings,
    shared: Shared,
    inputs: Inputs,
    out: Path,
    tracked: StageRun,
    *,
    method: Method,
    cycle: int,
    work: Path,
    params: Mapping[str, Any],
    compute: Compute,
) -> None:
    """Run one cycle of a method and write its policy, state, curve, metrics and validation records to `out`.

    Args:
        cycle: its number, from 1.
        work: the folder for checkpoints of iterations.
        params: all that a cycle depends on, as plain values; an interrupted cycle goes on only with the same.
        compute: how a policy in shards is sampled from, and whether the work of another number of processes goes on.
    """
    prompts, validation = read_rows(inputs.prompts, Prompt), read_rows(inputs.validation, Prompt)
    comparisons = read_rows(inputs.comparisons, Comparison)
    accelerator = start_accelerator()
    folders = ModelFolders(inputs.reference, inputs.reward_model, inputs.judge)
    frozen = FrozenModels.load(folders, accelerator.device, shared.language_model, shared.data)
    frozen.load_judge()  # seen to be whole before anything is trained, and let go of: it judges at the end alone
    codec = frozen.codec
    room = room_of(method)
    if room.learns_from == "comparisons":
        _require_comparisons(method, comparisons, inputs.comparisons)
        cut = cut_fractions_of_pairs(codec, "alignment", comparisons)
        read = len(comparisons)
        comparisons = distinct_pairs(comparisons, codec, str(inputs.comparisons))
        cut["comparisons_cut_alike"] = read - len(comparisons)
    else:
        cut = cut_fractions(codec, "alignment", [row.asked for row in prompts])
    content = {
        "params": without_requests(params),
        "cycle": cycle,
        "precision": accelerator.mixed_precision,
        "processes": accelerator.num_processes,
        "inputs": tracked.inputs,
    }
    content = broadcast_object_list([content])[0]  # the first process has read the inputs' digests, for all
    waiting = Work(work, f"alignment-{cycle}", f"iterations of cycle {cycle}", content)
    folder = waiting.folder
    if accelerator.is_main_process:
        waiting.find(compute)
    accelerator.wait_for_everyone()
    tracked.dataset("prompts", inputs.prompts)
    tracked.dataset("comparisons", inputs.comparisons)

    def log(row: CurveRow) -> None:
        tracked.metrics(
            {f"train/{name}": value for name, value in row.items() if name not in ("cycle", "iteration")},
            step=int(row["iteration"]),
        )

    def report(row: CurveRow) -> None:
        log(row)
        seconds_after[str(int(row["iteration"]))] = seconds_before + time.monotonic() - began
        waiting.write_record(seconds_after)

    # An interrupted cycle goes on: its run tells of the iterations before too, and of what they took.
    done: list[CurveRow] = list(read_json(folder / "curve.json")) if folder.exists() else []
    for row in done if accelerator.is_main_process else []:
        log(row)
    seconds_after = waiting.seconds_after()
    seconds_before = seconds_after.get(str(int(done[-1]["iteration"])), 0.0) if done else 0.0
    began = time.monotonic()
    checks = Checks(tracked.check, speaks=accelerator.is_main_process)
    require_sound_template(codec, has_system_turns=False, checks=checks)
    this_cycle = Cycle(cycle, inputs.policy.parent, folder, prompts, comparisons, report)
    gather = compute.gather_for_generation
    with ExitStack() as resources:
        job = Job(accelerator, method, settings, shared, this_cycle, frozen, checks, gather, resources)
        run_cycle(room.start, job)
    seconds = seconds_before + time.monotonic() - began
    accelerator.free_memory()  # of what was trained, before its stored copy is measured
    measured = {"cycle": _validate(folder / "policy", frozen, shared, validation, accelerator)}
    if cycle == 1:  # where the curves begin: the SFT policy, measured alike
        measured["start"] = _validate(inputs.reference, frozen, shared, validation, accelerator)
    if accelerator.is_main_process:
        records = measured["cycle"]
        curve = read_json(folder / "curve.json")
        cost = {name: sum(row[name] for row in curve) for name in COSTS}
        metrics = {"validation": means(records), "cost": cost, "cut": cut}
        if "start" in measured:
            metrics["validation_start"] = means(measured["start"])
        with atomic_folder(out) as scratch:
            # The last iteration's checkpoint is the result. Not moved, so that a failure here loses nothing.
            left_out = shutil.ignore_patterns(OPTIMIZER, resumption.FILE)
            shutil.copytree(folder, scratch, ignore=left_out, copy_function=link_or_copy, dirs_exist_ok=True)
            write_json(scratch / "metrics.json", metrics)
            write_records(scratch / "validation.jsonl", measured)  # for intervals between cycles, paired by prompt
        ended(work, waiting.name, [folder])
        warn(f"the policy of cycle {cycle}", signs_of(records), len(codec.tokenizer))
        tracked.metrics({f"validation/{name}": value for name, value in metrics["validation"].items()}, step=cycle)
        tracked.metrics({"cost/seconds": seconds} | {f"cost/{name}": value for name, value in cost.items()}, step=cycle)
        tracked.table("validation_samples.json", [row.columns() for row in records[:: max(1, len(records) // 20)]])


def _require_comparisons(method: Method, comparisons: list[Comparison], path: Path) -> None:
    """
    Raises:
        DataError: there is nothing to learn from.
    """
    if not comparisons:
        raise DataError(
            f"{method} learns from comparisons, and the data has none",
            where=str(path),
            expected="comparisons of two responses",
            found="none",
            do="bring comparisons, or choose a method that learns from its own responses: ppo, grpo, rloo, online_dpo",
        )


def _validate(
    policy: Path, frozen: FrozenModels, shared: Shared, prompts: list[Prompt], accelerator: Accelerator
) -> list[Record]:
    """The records of a stored policy, measured by all processes; see `measure`."""
    samples = shared.measurement.validation_samples_per_prompt
    device = next(frozen.reference.parameters()).device
    measured = load_policy(policy, shared.language_model).to(device)
    return measure(measured, frozen, shared, prompts, samples, "validation", together=accelerator)
