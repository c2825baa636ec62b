"""Run by several ranks: stages in shards, one behind the other, each in a folder of its own, alignment if not named."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from components.alignment.policy_gradient.learner import PolicyGradientLearner
from components.alignment.q_learning.learner import QLearningLearner
from components.config import load_params
from components.config.accelerate import accelerate_config
from components.measuring import shared_out
from components.place import Place
from components.stages import perform
from components.training import resumable
from components.training.accelerator import start_accelerator
from components.training.step import OptimizerStep

# A folder of such a name is left after two iterations, an SFT's after 5 steps; a copy of it goes on, under the other.
INTERRUPTED, RESUMED = "interrupted ", "resumed "
SFT = "sft"
resumable._SECONDS_BETWEEN = 0.0  # fits of a tiny world take no two seconds


def work(folder: Path) -> None:
    """Beside the work of the stage a file of each rank: the numbers of prompts that it answered when it measured."""
    os.chdir(folder)
    params, asked = load_params(Place().params), []
    alone = "sft" if folder.name.endswith(SFT) else folder.name.partition(" ")[0]
    stage, cycle = (alone, None) if alone in ("sft", "reward_model") else ("alignment", 1)
    real = shared_out.generate

    def counted(policy: Any, codec: Any, prompts: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(len(prompts))
        return real(policy, codec, prompts, *arguments, **options)

    shared_out.generate = counted
    try:
        perform(stage, params, Place(), cycle, accelerate_config(Path(params.compute.accelerate_config)))
    finally:
        shared_out.generate = real
    Path(f"asked_{os.environ['RANK']}.json").write_text(json.dumps(asked))


def interrupt(folder: Path) -> None:
    method = load_params(folder / Place().params).method
    learner: Any = QLearningLearner if method == "q_learning" else PolicyGradientLearner
    real, real_step, steps = learner.iterate, OptimizerStep.__call__, 0

    def stops_before_the_third(self: Any, iteration: int) -> Any:
        if iteration == 2:
            raise KeyboardInterrupt
        return real(self, iteration)

    def stops_after_five(step: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal steps
        if steps == 5:
            raise KeyboardInterrupt
        steps += 1
        return real_step(step, *arguments, **more)

    if folder.name.endswith(SFT):
        OptimizerStep.__call__ = stops_after_five  # type: ignore[method-assign]
    else:
        learner.iterate = stops_before_the_third
    try:
        work(folder)
    except KeyboardInterrupt:
        start_accelerator().free_memory()
    finally:
        learner.iterate = real
        OptimizerStep.__call__ = real_step  # type: ignore[method-assign]


def resumed(folder: Path) -> Path:
    return folder.with_name(folder.name.replace(INTERRUPTED, RESUMED))


def main(folders: list[Path]) -> None:
    for folder in folders:
        if not folder.name.startswith(INTERRUPTED):
            work(folder)
            continue
        interrupt(folder)
        accelerator = start_accelerator()
        if accelerator.is_main_process:
            shutil.copytree(folder, resumed(folder))
        accelerator.wait_for_everyone()
        work(resumed(folder))


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
