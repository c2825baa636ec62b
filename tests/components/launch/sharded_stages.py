"""Run by several ranks: stages in shards, one behind the other, each in a folder of its own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from components.alignment.policy_gradient.update import Updater
from components.config import load_params
from components.config.accelerate import accelerate_config
from components.place import Place
from components.stages import perform
from components.training import resumable
from components.training.accelerator import start_accelerator
from components.training.step import OptimizerStep

# A folder of this name is left after two iterations, a copy of it goes on as RESUMED; with SFT before it, after 5
# steps.
INTERRUPTED = "interrupted"
RESUMED = "resumed"
SFT = "sft"
resumable._SECONDS_BETWEEN = 0.0  # fits of a tiny world take no two seconds


def work(folder: Path) -> None:
    os.chdir(folder)
    params = load_params(Place().params)
    stage, cycle = ("sft", None) if folder.name.startswith(SFT) else ("alignment", 1)
    perform(stage, params, Place(), cycle, accelerate_config(Path(params.compute.accelerate_config)))


def interrupt(folder: Path) -> None:
    real, real_step, steps = Updater.update, OptimizerStep.__call__, 0

    def stops_in_the_third(updater: Any, *arguments: Any) -> Any:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return real(updater, *arguments)

    def stops_after_five(step: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal steps
        if steps == 5:
            raise KeyboardInterrupt
        steps += 1
        return real_step(step, *arguments, **more)

    if folder.name.startswith(SFT):
        OptimizerStep.__call__ = stops_after_five  # type: ignore[method-assign]
    else:
        Updater.update = stops_in_the_third  # type: ignore[method-assign]
    try:
        work(folder)
    except KeyboardInterrupt:
        start_accelerator().free_memory()
    finally:
        Updater.update = real  # type: ignore[method-assign]
        OptimizerStep.__call__ = real_step  # type: ignore[method-assign]


def main(folders: list[Path]) -> None:
    for folder in folders:
        if not folder.name.endswith(INTERRUPTED):
            work(folder)
            continue
        interrupt(folder)
        resumed = folder.with_name(folder.name.replace(INTERRUPTED, RESUMED))
        accelerator = start_accelerator()
        if accelerator.is_main_process:
            shutil.copytree(folder, resumed)
        accelerator.wait_for_everyone()
        work(resumed)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
