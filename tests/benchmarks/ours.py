"""Our side of tests/benchmarks/peer.py: one measurement in this process, printed as one line of JSON.

It drives the stages' own code.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import workload
from accelerate import Accelerator
from ours_fitting import dpo, fitting
from ours_ppo import ppo


def measure(options: workload.Options) -> None:
    measurement = {"ppo": ppo, "sft": fitting, "reward_model": fitting, "dpo": dpo}[options.work]
    result: dict[str, Any] = measurement(options)
    accelerator = Accelerator()
    memory = torch.tensor([workload.peak_memory_mib(options.device)], device=accelerator.device)
    result["peak_memory_mib"] = float(accelerator.gather(memory).sum())
    if "update_gflops_per_s" in result:  # afterwards: its matrices would count as memory of the update
        peak = workload.matmul_peak(options.precision, options.device, workload.CLOCKS[options.clock])
        peak = float(accelerator.gather(torch.tensor([peak], device=accelerator.device)).sum())
        result |= {"peak_gflops_per_s": peak, "share_of_peak": result["update_gflops_per_s"] / peak}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    workload.run_command(measure, __doc__)
