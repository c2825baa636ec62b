"""One PPO cycle as a stage: takes the last cycle's policy and gives the next one, measured."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from components import paths
from components.artifacts import atomic_folder, read_jsonl, write_json
from components.config import Params
from components.digests import digest, digest_of_values
from components.errors import ConfigError
from components.language_model.acceleration import start_accelerator
from components.language_model.loading import load_policy
from components.measurement import Record, Yardsticks, means, measure
from components.method import CurveRow
from components.ppo.cycle import run_cycle
from components.tracking import stage_run


def run(params: Params, cycle: int) -> None:
    """Run cycle number `cycle` (from 1) and write artifacts/ppo/<cycle>/."""
    if str(cycle) not in params.ppo_cycles:
        raise ConfigError(
            "there is no such cycle",
            where="--cycle",
            expected=f"one of {', '.join(params.ppo_cycles)} (ppo_cycles in params.yaml)",
            found=str(cycle),
        )
    start = Path(params.ppo_cycles[str(cycle)].start)
    prompts_source = paths.CLEAN / "prompts_train.jsonl"
    validation_source = paths.CLEAN / "prompts_validation.jsonl"
    models = [paths.SFT / "policy", paths.REWARD_MODEL / "model", paths.JUDGE / "model"]
    carried = [part for name in ("policy", "state") if (part := start / name).exists()]
    inputs = list(dict.fromkeys([*carried, *models, prompts_source, validation_source]))
    prompts, validation = read_jsonl(prompts_source), read_jsonl(validation_source)
    accelerator = start_accelerator()
    yardsticks = Yardsticks.load(accelerator.device)
    work = paths.WORK / f"ppo-{cycle}-{_work_key(params, cycle, inputs)}"

    with stage_run("ppo", params, inputs=inputs, cycle=cycle) as run:
        run.dataset("prompts", prompts_source)

        def log(row: CurveRow) -> None:
            run.metrics(
                {f"train/{name}": value for name, value in row.items() if name not in ("cycle", "iteration")},
                step=int(row["iteration"]),
            )

        encoded = yardsticks.codec.encode_prompts([row["prompt"] for row in prompts])
        run_cycle(accelerator, params, cycle, start, yardsticks, encoded, work, log)
        if accelerator.is_main_process:
            records = _validate(work / "policy", yardsticks, params, validation)
            metrics = {"validation": means(records)}
            if cycle == 1:  # where the curves begin: the SFT policy, measured alike
                metrics["validation_start"] = means(_validate(start / "policy", yardsticks, params, validation))
            folder = paths.PPO / str(cycle)
            with atomic_folder(folder) as scratch:
                # The last iteration's checkpoint is the result. Links, so that a failure here loses nothing.
                shutil.copytree(work, scratch, copy_function=os.link, dirs_exist_ok=True)
                write_json(scratch / "metrics.json", metrics)
            shutil.rmtree(work)
            run.metrics({f"validation/{name}": value for name, value in metrics["validation"].items()}, step=cycle)
            run.table("validation_samples.json", records[:: max(1, len(records) // 20)])
            run.outputs(sorted(folder.iterdir()))


def _validate(policy: Path, yardsticks: Yardsticks, params: Params, prompts: list[Record]) -> list[Record]:
    samples = params.measurement.validation_samples_per_prompt
    device = next(yardsticks.reference.parameters()).device
    return measure(load_policy(policy).to(device), yardsticks, params, prompts, samples, "validation")


def _work_key(params: Params, cycle: int, inputs: list[Path]) -> str:
    """Names the work folder: an interrupted cycle goes on only with the same params and the same inputs."""
    content = {
        "params": params.model_dump(exclude={"evaluation", "promotion", "selection", "ppo_cycles"}),
        "cycle": cycle,
        "inputs": {str(path): digest(path) for path in inputs},
    }
    return digest_of_values(content)[:16]
