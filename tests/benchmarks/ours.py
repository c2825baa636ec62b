"""Our side of tests/benchmarks/peer.py: one measurement in this process, printed as one line of JSON.

It drives the stages' own code: roll_out, assign_credit, update and fit.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import workload
from accelerate import Accelerator
from ruamel.yaml import YAML
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from components.config import Optimisation, Params, parse_params
from components.core.losses import bradley_terry_loss, dpo_loss
from components.core.stats import RunningMoments, masked_sum
from components.language_model.acceleration import start_accelerator
from components.language_model.fitting import fit
from components.language_model.forward import in_microbatches, response_logprobs, sequence_scores
from components.language_model.generation import generate
from components.language_model.loading import load_policy, load_scalar_model
from components.language_model.sequences import Sequences, build_sequences
from components.language_model.text import Codec, TextFormat
from components.measurement import Yardsticks
from components.ppo import rollouts as rollouts_module
from components.ppo.actor_critic import ActorCritic
from components.ppo.credit import assign_credit
from components.ppo.cycle import make_optimizer
from components.ppo.rollouts import Collector
from components.ppo.update import Updater

ROOT = Path(__file__).resolve().parents[2]


class CodecWithoutEnd(Codec):
    """No token of the vocabulary ends a response."""

    @property
    def eos_id(self) -> int:
        return -1


def params_of_the_work(options: argparse.Namespace) -> Params:
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["language_model"] |= {
        "max_prompt_tokens": workload.LONGEST_PROMPT,
        "max_response_tokens": options.response_tokens,
    }
    values["ppo"] |= {
        "rollouts_per_iteration": options.rollouts,
        "epochs": workload.EPOCHS,
        "minibatches": workload.MINIBATCHES,
        "microbatch_size": workload.MICROBATCH,
        "temperature": 1.0,
        "learning_rate": workload.LEARNING_RATE,
        "value_learning_rate": workload.LEARNING_RATE,
        "missing_eos": "none",
        "kl_control": "fixed",
        "kl_coef": workload.KL_COEF,
        "value_loss_coef": workload.VALUE_LOSS_COEF,
        "score_clip": None,
        "gradient_clip": 1e9,  # TRL's PPO has none
    }
    return parse_params(values, "tests/benchmarks")


def ppo(options: argparse.Namespace) -> dict[str, Any]:
    folder, clock = options.folder, workload.CLOCKS[options.clock]
    params = params_of_the_work(options)
    accelerator = start_accelerator()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "policy")
    make_codec = Codec if options.eos == "on" else CodecWithoutEnd
    codec = make_codec(tokenizer, TextFormat("{prompt}", workload.LONGEST_PROMPT, options.response_tokens))
    model = ActorCritic(load_policy(folder / "policy"), load_scalar_model(folder / "scalar"))
    scalar = load_scalar_model(folder / "scalar").to(accelerator.device)
    yardsticks = Yardsticks(load_policy(folder / "policy").to(accelerator.device), scalar, scalar, codec)
    optimizer = make_optimizer(model.to(accelerator.device), params.ppo)
    for group in optimizer.param_groups:
        group["lr"] = workload.LEARNING_RATE
    prepared, optimizer = accelerator.prepare(model, optimizer)
    collector = Collector(accelerator, model, yardsticks.reference, yardsticks, params)
    updater = Updater(accelerator, prepared, optimizer, params.ppo, seed=1)
    prompts = json.loads((folder / "prompts.json").read_text())
    seconds_of_generation: list[float] = []

    def timed_generate(*arguments: Any, **named: Any) -> Sequences:
        started = clock()
        sequences = generate(*arguments, **named)
        seconds_of_generation.append(clock() - started)
        return sequences

    rollouts_module.generate = timed_generate  # the only change: a clock around it
    rows: list[dict[str, float]] = []
    for iteration in range(1 + options.updates):
        batch = prompts[iteration * options.rollouts :][: options.rollouts]
        started = clock()
        rollouts = collector.roll_out(batch, iteration)
        credit, _ = assign_credit(rollouts, workload.KL_COEF, RunningMoments(), params.ppo)
        scored = clock()
        if iteration == 0 and options.check:
            return check(accelerator, prepared, optimizer, rollouts, credit, params, folder)
        updater.update(rollouts, credit, workload.KL_COEF, iteration)
        ended = clock()
        lengths = rollouts.sequences.mask.sum(dim=1).tolist()
        responses = int(rollouts.sequences.response_mask.sum())
        flops = workload.flops_of_updates(options.size, lengths, responses)
        rows.append(
            {
                "rollouts_s": seconds_of_generation[-1],
                "scoring_s": scored - started - seconds_of_generation[-1],
                "updates_s": ended - scored,
                "whole_s": ended - started,
                "response_tokens": responses,
                "update_gflops_per_s": flops / (ended - scored) / 1e9,
            }
        )
    return {name: statistics.median(row[name] for row in rows[1:]) for name in rows[0]}


def check(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    rollouts: Any,
    credit: Any,
    params: Params,
    folder: Path,
) -> dict[str, Any]:
    """One optimiser step over all rollouts, and the same in plain float32 Hugging Face, a sequence at a time."""
    one_step = params.ppo.model_copy(update={"epochs": 1, "minibatches": 1})
    found = Updater(accelerator, model, optimizer, one_step, 1).update(rollouts, credit, workload.KL_COEF, 0)
    mask = rollouts.sequences.response_mask
    pairs = [
        (prompt[there].tolist(), response[counted].tolist())
        for prompt, there, response, counted in zip(*rollouts.sequences, strict=True)
    ]
    advantages = [row[counted] for row, counted in zip(credit.advantages, mask, strict=True)]
    expected = workload.plain_first_update(folder, str(accelerator.device), pairs, advantages)
    return {
        name: {"ours": found[name], "plain_float32": expected[name]}
        for name in ("value_loss", "policy_gradient_norm", "value_gradient_norm")
    }


def fitting(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of `fit` with the loss of SFT, of the reward model or of DPO."""
    clock = workload.CLOCKS[options.clock]
    accelerator = start_accelerator()
    prompts, chosen, rejected = workload.preferences(options.size)
    count = len(prompts)
    both = build_sequences(prompts + prompts, chosen + rejected, workload.PAD_ID).to(accelerator.device)
    model: Any = load_policy(options.folder / "policy").to(accelerator.device)
    loss_sum: Callable[[nn.Module, Tensor], Tensor]
    lengths = both.mask.sum(dim=1)
    weights = torch.ones(count)
    per_pair = lengths[:count] + lengths[count:]
    per_example = per_pair

    def pair(index: Tensor) -> Sequences:
        return both.rows(torch.cat([index, index + count]))

    if options.work == "sft":
        weights, per_example = both.response_mask[:count].sum(dim=1).float(), lengths[:count]

        def loss_sum(model: nn.Module, index: Tensor) -> Tensor:
            part = both.rows(index)
            return -masked_sum(response_logprobs(model, part, 1.0), part.response_mask)

    elif options.work == "reward_model":
        model = load_scalar_model(options.folder / "scalar").to(accelerator.device)

        def loss_sum(model: nn.Module, index: Tensor) -> Tensor:
            return bradley_terry_loss(*sequence_scores(model, pair(index)).chunk(2)).sum()

    else:
        reference = load_policy(options.folder / "policy").to(accelerator.device)

        def of_responses(policy: nn.Module, part: Sequences) -> Tensor:
            return masked_sum(response_logprobs(policy, part, 1.0), part.response_mask, dim=1)

        def reference_logprobs() -> Tensor:
            with accelerator.autocast():
                return in_microbatches(lambda part: (of_responses(reference, part),), both, workload.MICROBATCH)[0]

        def loss_sum(model: nn.Module, index: Tensor) -> Tensor:
            ref_chosen, ref_rejected = of_reference[index], of_reference[index + count]
            return dpo_loss(*of_responses(model, pair(index)).chunk(2), ref_chosen, ref_rejected, beta=0.1).sum()

    settings = Optimisation(
        learning_rate=workload.LEARNING_RATE,
        weight_decay=0.01,
        gradient_clip=1.0,
        warmup_fraction=0.0,
        epochs=1,
        batch_size=workload.FIT_BATCH,
        microbatch_size=workload.MICROBATCH,
    )
    times = [clock()]
    if options.work == "dpo":
        of_reference = reference_logprobs()  # once for all steps, and its share of the time on every step
    share = (clock() - times[0]) / (count // workload.FIT_BATCH)
    times = [clock()]
    fit(
        accelerator,
        model,
        loss_sum,
        weights,
        lengths[:count],
        settings,
        torch.Generator().manual_seed(1),
        lambda step, loss: times.append(clock()),
        options.work,
    )
    steps = [after - before + share for before, after in zip(times, times[1:], strict=False)]
    per_step = statistics.median(steps[2:])
    return {"tokens_per_s": float(per_example.float().mean()) * workload.FIT_BATCH / per_step}


def main() -> None:
    options = workload.options()
    result = ppo(options) if options.work == "ppo" else fitting(options)
    result["peak_memory_mib"] = workload.peak_memory_mib(options.device)
    if "update_gflops_per_s" in result:  # afterwards: its matrices would count as memory of the update
        peak = workload.matmul_peak(options.precision, options.device, workload.CLOCKS[options.clock])
        result |= {"peak_gflops_per_s": peak, "share_of_peak": result["update_gflops_per_s"] / peak}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
