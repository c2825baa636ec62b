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
from components.training.accelerator import start_accelerator

INTERRUPTED = "interrupted"  # a folder of this name is left after two iterations, a copy of it goes on as RESUMED
RESUMED = "resumed"


def work(folder: Path) -> None:
    os.chdir(folder)
    params = load_params(Place().params)
    perform("alignment", params, Place(), 1, accelerate_config(Path(params.compute.accelerate_config)))


def interrupt(folder: Path) -> None:
    real = Updater.update

    def stops_in_the_third(updater: Any, *arguments: Any) -> Any:
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return real(updater, *arguments)

    Updater.update = stops_in_the_third  # type: ignore[method-assign]
    try:
        work(folder)
    except KeyboardInterrupt:
        start_accelerator().free_memory()
    finally:
        Updater.update = real  # type: ignore[method-assign]


def main(folders: list[Path]) -> None:
    for folder in folders:
        if folder.name != INTERRUPTED:
            work(folder)
            continue
        interrupt(folder)
        accelerator = start_accelerator()
        if accelerator.is_main_process:
            shutil.copytree(folder, folder.with_name(RESUMED))
        accelerator.wait_for_everyone()
        work(folder.with_name(RESUMED))


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
