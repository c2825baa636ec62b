"""One training a GPU: slots of a global concurrency limit on the Prefect server that the runs share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.config import load_params
from components.config.accelerate import accelerate_config
from components.errors import EnvironmentFault
from components.place import Place

LIMIT = "gpu"  # as many slots as GPUs: `proximal deploy` makes it


def gpus_here() -> int:
    """How many GPUs NVIDIA's driver finds on this machine; none without one."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def gpus_of(folder: Path) -> int:
    """How many the run computes on.

    Raises:
        ConfigError: the params or the Accelerate config that they name are not valid.
    """
    params = load_params(Place(folder).params)
    config = accelerate_config(folder / params.compute.accelerate_config)
    return 0 if config.use_cpu else config.num_processes


@contextmanager
def held(gpus: int) -> Iterator[None]:
    """So many GPUs for the block, once other runs have left them; at once where the server keeps no limit.

    A run that is killed holds its slots until Prefect sees, in 5 minutes, that nobody renews them.

    Raises:
        EnvironmentFault: there are not as many.
    """
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectNotFound

    if not gpus:
        yield
        return
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(LIMIT).limit
        except ObjectNotFound:
            limit = None
    if limit is None:
        yield
        return
    if limit < gpus:
        raise EnvironmentFault(
            "the Prefect server has fewer GPUs to give than a run asks for",
            where=f"global concurrency limit {LIMIT}",
            expected=f"{gpus} slots or more: num_processes of the Accelerate config",
            found=str(limit),
            do=f"`prefect gcl update {LIMIT} --limit {gpus}`, where the machines have as many",
        )
    # Whoever loses a slot, the server away, goes on: the work is half done, and nobody waits for less than a GPU.
    with concurrency(LIMIT, occupy=gpus, raise_on_lease_renewal_failure=False):
        yield
