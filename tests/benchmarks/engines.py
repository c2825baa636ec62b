"""Our own engine beside vLLM on the same prompts and weights: `.venv/bin/python tests/benchmarks/engines.py MODEL`.

MODEL is a folder with a Hugging Face model, e.g. models/smollm2-135m-instruct (`make smollm2`); vLLM is that of
`make vllm`. Prints seconds of start and of updates, tokens per second of both, one core each, in turns, and how far
vLLM's logprobs are from ours. On a machine with other work only the ratio tells something.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from components.alignment.policy_gradient.mismatch import held_against_ours
from components.config import load_params
from components.engines.own import OwnEngine
from components.engines.sampling import draw_uniforms
from components.engines.vllm import VllmEngine
from components.models.adapters import new_adapter_policy
from components.models.codecs import checkpoint_codec
from components.models.loading import load_checkpoint, stop_ids
from components.passes.forward import in_microbatches, response_logprobs
from components.self_checks import Checks

ROOT = Path(__file__).resolve().parents[2]
TEXT = "You are asked for advice by a friend who has moved to another town. Say what you would do in week number"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("model")
    asked.add_argument("--rollouts", type=int, default=32)
    asked.add_argument("--tokens", type=int, default=64)
    asked.add_argument("--dtype", default="bfloat16")
    asked.add_argument("--adapter", action="store_true")
    asked.add_argument("--updates", type=int, default=3)
    options = asked.parse_args()
    generation = {
        "engine": "vllm",
        "command": [str(ROOT / ".venv-vllm" / "bin" / "vllm")],
        "arguments": ["--enforce-eager", "--max-num-seqs", str(options.rollouts)],
        "environment": {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "1"},
        "dtype": options.dtype,
        "start_timeout_seconds": 1200.0,
        "sleeps": False,
        "requests_at_once": options.rollouts,
        "timeout_seconds": 600.0,
        "max_probe_gap_nats_per_token": 1.0,
        "max_mismatch_kl_nats_per_token": 1.0,
        "importance_weight_cap": 2.0,
    }
    adapter = {"kind": "lora", "rank": 8, "alpha": 16, "target_modules": "all-linear"} if options.adapter else None
    changes: dict[str, Any] = {
        "generation": generation,
        "language_model.checkpoint": options.model,
        "language_model.checkpoint_files": options.model,
        "language_model.adapter": adapter,
        "language_model.dtype": options.dtype,
        "language_model.max_response_tokens": options.tokens,
    }
    params = load_params(ROOT / "params.yaml", changes)
    model = params.language_model
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if options.dtype == "bfloat16" else "no")
    policy = load_checkpoint(model)
    codec = checkpoint_codec(model, stop_ids(policy))
    if adapter:
        policy = new_adapter_policy(policy, model, seed=1)
    prompts = codec.encode_prompts([f"{TEXT} {number}." for number in range(options.rollouts)])
    folder = Path(tempfile.mkdtemp(prefix="proximal-engines-"))
    own = OwnEngine(lambda: nullcontext(policy), codec, temperature=1.0, batch_size=options.rollouts)
    engine = VllmEngine(
        *(params.generation, accelerator, lambda: nullcontext(policy), codec, params.shared, prompts),
        temperature=1.0,
        folder=folder,
        checks=Checks(),
    )
    rows: list[dict[str, Any]] = []
    torch.set_num_threads(1)  # as VLLM_CPU_OMP_THREADS_BIND gives vLLM one
    draw, moves = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    try:
        for update in range(options.updates):
            began = time.monotonic()
            row: dict[str, Any] = {"update": update, **engine.sync(update + 1), "sync_s": time.monotonic() - began}
            uniforms = draw_uniforms(options.rollouts, options.tokens, draw)
            in_turns = [("vllm", engine), ("own", own)]
            for name, each in in_turns if update % 2 else reversed(in_turns):
                began = time.monotonic()
                with accelerator.autocast(), torch.no_grad():
                    sampled = each.sample(prompts, uniforms, slice(None))
                tokens = int(sampled.sequences.response_mask.sum())
                row |= {f"{name}_tokens": tokens, f"{name}_tokens_per_s": tokens / (time.monotonic() - began)}
                if name == "vllm":
                    with accelerator.autocast(), torch.no_grad():
                        (ours,) = in_microbatches(
                            lambda part: (response_logprobs(policy, part, 1.0),), sampled.sequences, 8
                        )
                    mask = sampled.sequences.response_mask
                    row |= held_against_ours(Checks(), ours, sampled.logprobs, mask, params.generation, "benchmark")[0]
            print(json.dumps({name: round(value, 10) for name, value in row.items()}), flush=True)
            rows.append(row)
            with torch.no_grad():
                for weight in policy.parameters():
                    weight.add_(3e-4 * torch.randn(weight.shape, generator=moves))
        ratios = [row["vllm_tokens_per_s"] / row["own_tokens_per_s"] for row in rows]
        print(
            f"{_processor()}, {options.dtype}: vLLM samples {statistics.median(ratios):.2f} times the tokens of ours "
            f"(of {len(rows)} turns {min(ratios):.2f} to {max(ratios):.2f}); mismatch_kl up to "
            f"{max(row['mismatch_kl'] for row in rows):.2g}, largest gap {max(row['mismatch_max'] for row in rows):.2g}"
        )
    finally:
        engine.close()
        shutil.rmtree(folder, ignore_errors=True)


def _processor() -> str:
    """Its name, family and model: names alone do not tell generations of servers apart."""
    told = Path("/proc/cpuinfo")
    if not told.exists():
        return platform.processor()
    words = dict(
        line.split("\t: ", 1) for line in told.read_text().replace("\t\t", "\t").splitlines() if "\t: " in line
    )
    return f"{words.get('model name', '?')} (family {words.get('cpu family', '?')}, model {words.get('model', '?')})"


if __name__ == "__main__":
    main()
