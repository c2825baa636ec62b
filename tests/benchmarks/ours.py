"""Our side of tests/benchmarks/peer.py: one measurement in this process, printed as one line of JSON.

It drives the stages' own code: Collector, assign_credit, the Updaters of PPO and DPO, and fit.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
import workload
from accelerate import Accelerator
from ruamel.yaml import YAML
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from components.alignment.dpo.learner import parameter_groups as dpo_groups
from components.alignment.dpo.reference import reference_logprobs
from components.alignment.dpo.update import Updater as DpoUpdater
from components.alignment.policy_gradient import rollouts as rollouts_module
from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.credit import assign_credit
from components.alignment.policy_gradient.learner import parameter_groups
from components.alignment.policy_gradient.rollouts import Collector, EncodedPrompt
from components.alignment.policy_gradient.update import Updater
from components.alignment.ppo.learner import estimate
from components.config import Optimisation, Params, parse_params
from components.core.losses import bradley_terry_loss
from components.core.stats import RunningMoments
from components.engines.generation import generate
from components.measuring.measure import FrozenModels
from components.models.loading import load_policy, load_scalar_model
from components.models.text import Codec, TextFormat
from components.passes.forward import response_logprobs, sequence_scores
from components.passes.sequences import Packed, Sequences, build_sequences
from components.training.accelerator import start_accelerator
from components.training.fit import Examples, fit
from components.training.schedule import make_optimizer

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
    frozen = FrozenModels(load_policy(folder / "policy").to(accelerator.device), scalar, scalar, codec)
    groups = parameter_groups(model.to(accelerator.device), params.ppo, params.ppo)
    optimizer: Any = make_optimizer(groups, params.ppo.weight_decay)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    collector = Collector(accelerator, model, frozen.reference, frozen, params.alignment, params.shared, params.method)
    updater = Updater(accelerator, prepared, optimizer, params.ppo, params.ppo, seed=1, method="ppo")
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
        tokens = prompts[iteration * options.rollouts :][: options.rollouts]
        batch = [EncodedPrompt("", prompt) for prompt in tokens]
        started = clock()
        rollouts = collector.roll_out(batch, iteration)
        credit, _ = assign_credit(rollouts, workload.KL_COEF, RunningMoments(), params.ppo, estimate(params.ppo))
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
    found = Updater(accelerator, model, optimizer, one_step, one_step, 1, "ppo").update(
        rollouts, credit, workload.KL_COEF, 0
    )
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


def preferences(options: argparse.Namespace) -> Sequences:
    """The chosen responses to all prompts, then the rejected ones."""
    prompts, chosen, rejected = workload.preferences(options.size)
    return build_sequences(prompts + prompts, chosen + rejected, workload.PAD_ID)


def fitting(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of `fit` with the loss of SFT or of the reward model."""
    clock = workload.CLOCKS[options.clock]
    accelerator = start_accelerator()
    both = preferences(options)
    count, lengths = len(both) // 2, both.mask.sum(dim=1)
    if options.work == "sft":
        model: Any = load_policy(options.folder / "policy")
        weights, per_example = both.response_mask[:count].sum(dim=1).float(), lengths[:count]

        def sequences_of(index: Tensor) -> Sequences:
            return both.rows(index)

        def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
            return -response_logprobs(model, part, 1.0).sum()

    else:
        model = load_scalar_model(options.folder / "scalar")
        weights, per_example = torch.ones(count), lengths[:count] + lengths[count:]

        def sequences_of(index: Tensor) -> Sequences:
            return both.rows(torch.cat([index, index + count]))

        def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
            chosen, rejected = sequence_scores(model, part).chunk(2)
            return bradley_terry_loss(chosen, rejected).sum()

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
    fit(
        accelerator,
        model.to(accelerator.device),
        Examples(sequences_of, weights, lengths[:count]),
        loss_sum,
        settings,
        torch.Generator().manual_seed(1),
        lambda step, loss: times.append(clock()),
        options.work,
    )
    return tokens_per_second(times, per_example)


def dpo(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of DPO's steps, and of the reference's logprobs, computed once for all of them."""
    clock = workload.CLOCKS[options.clock]
    accelerator = start_accelerator()
    pairs = preferences(options)
    count, lengths = len(pairs) // 2, pairs.mask.sum(dim=1)
    changes = {"batch_size": workload.FIT_BATCH, "microbatch_size": workload.MICROBATCH, "gradient_clip": 1.0}
    settings = params_of_the_work(options).dpo.model_copy(update=changes)
    policy, reference = (load_policy(options.folder / "policy").to(accelerator.device) for _ in range(2))
    groups = dpo_groups(policy, settings.model_copy(update={"learning_rate": workload.LEARNING_RATE}))
    optimizer: Any = make_optimizer(groups, settings.weight_decay)
    prepared, optimizer = accelerator.prepare(policy, optimizer)
    started = clock()
    ref_logprobs = reference_logprobs(
        accelerator, reference, pairs, [list(range(count))], temperature=1.0, microbatch_size=workload.MICROBATCH
    )
    share = (clock() - started) / (count // workload.FIT_BATCH)
    ids = [str(row) for row in range(count)]
    updater = DpoUpdater(accelerator, prepared, optimizer, pairs, ref_logprobs, ids, settings, temperature=1.0)
    times = [clock()]
    for number, rows in enumerate(torch.arange(count).split(workload.FIT_BATCH), start=1):
        updater.update(rows, number)
        times.append(clock() + number * share)
    return tokens_per_second(times, lengths[:count] + lengths[count:])


def tokens_per_second(times: list[float], tokens: Tensor) -> dict[str, float]:
    """From when each step ended, the first ones warming up, and the tokens of each example."""
    steps = [after - before for before, after in zip(times, times[1:], strict=False)]
    return {"tokens_per_s": float(tokens.float().mean()) * workload.FIT_BATCH / statistics.median(steps[2:])}


def main() -> None:
    options = workload.options()
    measure = {"ppo": ppo, "sft": fitting, "reward_model": fitting, "dpo": dpo}[options.work]
    result = measure(options)
    accelerator = Accelerator()
    memory = torch.tensor([workload.peak_memory_mib(options.device)], device=accelerator.device)
    result["peak_memory_mib"] = float(accelerator.gather(memory).sum())
    if "update_gflops_per_s" in result:  # afterwards: its matrices would count as memory of the update
        peak = workload.matmul_peak(options.precision, options.device, workload.CLOCKS[options.clock])
        peak = float(accelerator.gather(torch.tensor([peak], device=accelerator.device)).sum())
        result |= {"peak_gflops_per_s": peak, "share_of_peak": result["update_gflops_per_s"] / peak}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
