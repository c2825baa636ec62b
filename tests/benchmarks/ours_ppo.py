"""PPO on our side: Collector, assign_credit and Updater of the stage, with clocks around them; and one step checked."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, cast

import workload
from accelerate import Accelerator
from ruamel.yaml import YAML
from torch import nn
from transformers import PreTrainedTokenizerFast

from components.alignment.policy_gradient import rollouts as rollouts_module
from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.credit import assign_credit
from components.alignment.policy_gradient.learner import parameter_groups
from components.alignment.policy_gradient.rollouts import Collector, EncodedPrompt
from components.alignment.policy_gradient.update import Updater
from components.alignment.ppo.learner import estimate
from components.config import Params, Ppo, parse_params
from components.core.stats import RunningMoments
from components.data.rows import Prompt
from components.engines.generation import generate
from components.measuring.measure import FrozenModels
from components.models.loading import load_policy, load_scalar_model
from components.models.text import Codec, TextFormat
from components.passes.sequences import Sequences
from components.place import ModelFolders
from components.scoring.scorer import Scorer
from components.training.accelerator import start_accelerator
from components.training.schedule import make_optimizer

ROOT = Path(__file__).resolve().parents[2]


class CodecWithoutEnd(Codec):
    """No token of the vocabulary ends a response."""

    @property
    def eos_id(self) -> int:
        return -1


def params_of_the_work(options: workload.Options) -> Params:
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


def ppo(options: workload.Options) -> dict[str, Any]:
    folder, clock = options.folder, workload.CLOCKS[options.clock]
    params = params_of_the_work(options)
    settings = cast(Ppo, params.ppo)
    accelerator = start_accelerator()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "policy")
    make_codec = Codec if options.eos == "on" else CodecWithoutEnd
    codec = make_codec(tokenizer, TextFormat("{prompt}", workload.LONGEST_PROMPT, options.response_tokens))
    model = ActorCritic(load_policy(folder / "policy"), load_scalar_model(folder / "scalar"))
    scalar = load_scalar_model(folder / "scalar").to(accelerator.device)
    folders = ModelFolders(folder / "policy", folder / "scalar", folder / "scalar")
    reference = load_policy(folder / "policy").to(accelerator.device)
    frozen = FrozenModels(reference, Scorer(scalar), lambda: Scorer(scalar), codec, folders)
    groups = parameter_groups(model.to(accelerator.device), settings, settings)
    optimizer: Any = make_optimizer(groups, settings.weight_decay)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    collector = Collector(accelerator, model, frozen.reference, frozen, settings, params.shared, params.method)
    limit = params.language_model.max_response_tokens
    updater = Updater(accelerator, prepared, optimizer, settings, settings, 1, "ppo", limit)
    prompts = json.loads((folder / "prompts.json").read_text())
    seconds_of_generation: list[float] = []

    def timed_generate(*arguments: Any, **named: Any) -> Sequences:
        started = clock()
        sequences = generate(*arguments, **named)
        seconds_of_generation.append(clock() - started)
        return sequences

    module: Any = rollouts_module
    module.generate = timed_generate  # the only change: a clock around it
    rows: list[dict[str, float]] = []
    for iteration in range(1 + options.updates):
        tokens = prompts[iteration * options.rollouts :][: options.rollouts]
        batch = [EncodedPrompt(Prompt("", ""), prompt) for prompt in tokens]
        started = clock()
        rollouts = collector.roll_out(batch, iteration)
        credit, _ = assign_credit(rollouts, workload.KL_COEF, RunningMoments(), settings, estimate(settings))
        scored = clock()
        if iteration == 0 and options.check:
            return check(accelerator, prepared, optimizer, rollouts, credit, settings, folder)
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
    settings: Ppo,
    folder: Path,
) -> dict[str, Any]:
    """One optimiser step over all rollouts, and the same in plain float32 Hugging Face, a sequence at a time."""
    one_step = settings.model_copy(update={"epochs": 1, "minibatches": 1})
    found = Updater(accelerator, model, optimizer, one_step, one_step, 1, "ppo", rollouts.old_logprobs.shape[1]).update(
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
