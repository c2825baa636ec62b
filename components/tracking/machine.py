"""What the machine does while a stage runs: processors, memory and GPUs, under the names of MLflow's own monitor.

MLflow's own (`log_system_metrics`) writes to the server itself, and loses what one that is away does not take; here the
journal takes what is sampled, as all else. Of several machines it is the first one.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from components.errors import EnvironmentFault
from components.tracking.recorder import StageRun

SECONDS_BETWEEN = 10.0
_GPU = ("nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used,memory.total,power.draw")
_PATIENCE_S = 5.0
_MEBIBYTE = 1024**2 / 1e6  # in megabytes


@contextmanager
def sampled(run: StageRun, seconds_between: float = SECONDS_BETWEEN) -> Iterator[None]:
    """Tell `run` every so many seconds, until the end of the block, what the machine does."""
    over = threading.Event()

    def sample() -> None:
        psutil.cpu_percent()  # of the time since it was asked before
        step = 0
        while not over.wait(seconds_between):
            try:
                run.metrics(sample_of_now(), step=step)
            except EnvironmentFault:  # a full disk, of which the stage itself tells
                return
            step += 1

    thread = threading.Thread(target=sample, name="machine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sample_of_now() -> dict[str, float]:
    """MLflow's names and values: processors' use in percent since the last sample, memory, and each GPU's."""
    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        **_gpus(),
    }


def _gpus() -> dict[str, float]:
    """What NVIDIA's driver tells; nothing without one, and of a figure that it does not have."""
    if shutil.which(_GPU[0]) is None:
        return {}
    command = [*_GPU, "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False).stdout
    except subprocess.TimeoutExpired:
        return {}
    found: dict[str, float] = {}
    for line in told.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 5 or not cells[0].isdigit():
            continue  # "No devices were found"
        use, used, total, power = (float(cell) if _is_number(cell) else None for cell in cells[1:])
        gpu = {
            "utilization_percentage": use,
            "memory_usage_megabytes": used * _MEBIBYTE if used is not None else None,
            "memory_usage_percentage": 100.0 * used / total if used is not None and total else None,
            "power_usage_watts": power,
        }
        found |= {f"system/gpu_{cells[0]}_{name}": value for name, value in gpu.items() if value is not None}
    return found


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
