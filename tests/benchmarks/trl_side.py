"""TRL's side of tests/benchmarks/peer.py: one measurement in this process, printed as one line of JSON.

Runs in an environment of its own, with trl's trainers as they are; only clocks are put around their parts.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from typing import Any

import torch
import workload
from datasets import Dataset
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

COMMON = {
    "per_device_train_batch_size": workload.MICROBATCH,
    "learning_rate": workload.LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "seed": 1,
}


def ppo(options: workload.Options, folder: str) -> dict[str, Any]:
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    clock = workload.CLOCKS[options.clock]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.folder / "policy", padding_side="left")
    prompts = json.loads((options.folder / "prompts.json").read_text())
    steps = 1 + options.updates
    data = Dataset.from_list([{"input_ids": row} for row in prompts[: steps * options.rollouts]])

    def policy() -> Any:
        return LlamaForCausalLM.from_pretrained(options.folder / "policy", dtype=torch.float32)

    def scalar() -> Any:
        return LlamaForSequenceClassification.from_pretrained(options.folder / "scalar", dtype=torch.float32)

    config = PPOConfig(
        output_dir=folder,
        **COMMON,
        use_cpu=options.device == "cpu",
        bf16=options.precision == "bf16",
        gradient_accumulation_steps=options.rollouts // workload.MICROBATCH,
        num_ppo_epochs=workload.EPOCHS,
        num_mini_batches=workload.MINIBATCHES,
        local_rollout_forward_batch_size=64,
        total_episodes=steps * options.rollouts,
        num_sample_generations=0,
        response_length=options.response_tokens,
        stop_token="eos" if options.eos == "on" else None,
        temperature=1.0,
        kl_coef=workload.KL_COEF,
        vf_coef=workload.VALUE_LOSS_COEF,
    )
    rows: list[dict[str, float]] = []
    marks: dict[str, float] = {}
    generate = ppo_trainer.batch_generation

    def timed_generation(model: Any, queries: Any, *arguments: Any) -> Any:
        marks.clear()
        marks["start"] = clock()
        result = generate(model, queries, *arguments)
        marks["generated"] = clock()
        marks["response_tokens"] = float(count_responses(result[0][:, queries.shape[1] :]))
        return result

    def count_responses(responses: torch.Tensor) -> int:
        if options.eos == "off":
            return responses.numel()
        after = ((responses == workload.EOS_ID).cumsum(dim=1) - (responses == workload.EOS_ID).long()) > 0
        return int((~after).sum())

    class Timed(PPOTrainer):  # type: ignore[misc]  # TRL is not in this environment
        def log(self, *arguments: Any, **named: Any) -> None:
            ended = clock()
            rows.append(
                {
                    "rollouts_s": marks["generated"] - marks["start"],
                    "scoring_s": marks["scored"] - marks["generated"],
                    "updates_s": ended - marks["scored"],
                    "whole_s": ended - marks["start"],
                    "response_tokens": marks["response_tokens"],
                }
            )

    ppo_trainer.batch_generation = timed_generation
    trainer = Timed(
        args=config,
        processing_class=tokenizer,
        model=policy(),
        ref_model=policy(),
        reward_model=scalar(),
        value_model=scalar(),
        train_dataset=data,
        eval_dataset=data.select(range(2)),
    )
    trainer.model.register_forward_pre_hook(lambda *_: marks.setdefault("scored", clock()) and None)
    trainer.train()
    return {name: statistics.median(row[name] for row in rows[1:]) for name in rows[0]}


class Clock(TrainerCallback):
    """Notes when optimiser steps begin and end."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(self.clock())


def fitting(options: workload.Options, folder: str) -> dict[str, Any]:
    import trl

    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.folder / "policy")
    prompts, chosen, rejected = (workload.text_of(rows) for rows in workload.preferences(options.size))
    clock = Clock(workload.CLOCKS[options.clock])
    common = COMMON | {
        "output_dir": folder,
        "use_cpu": options.device == "cpu",
        "bf16": options.precision == "bf16",
        "gradient_accumulation_steps": workload.FIT_BATCH // workload.MICROBATCH,
        "num_train_epochs": 1,
    }
    model: Any
    trainer: Any
    if options.work == "sft":
        model = LlamaForCausalLM.from_pretrained(options.folder / "policy", dtype=torch.float32)
        rows = [{"prompt": p + " ", "completion": c} for p, c in zip(prompts, chosen, strict=True)]
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(**common, completion_only_loss=True),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(rows),
            callbacks=[clock],
        )
    else:
        rows = [
            {"prompt": p + " ", "chosen": c, "rejected": r} for p, c, r in zip(prompts, chosen, rejected, strict=True)
        ]
        data = Dataset.from_list(rows)
        if options.work == "reward_model":
            model = LlamaForSequenceClassification.from_pretrained(options.folder / "scalar", dtype=torch.float32)
            trainer = trl.RewardTrainer(
                model=model,
                args=trl.RewardConfig(**common),
                processing_class=tokenizer,
                train_dataset=data,
                callbacks=[clock],
            )
        else:
            model = LlamaForCausalLM.from_pretrained(options.folder / "policy", dtype=torch.float32)
            trainer = trl.DPOTrainer(
                model=model,
                ref_model=LlamaForCausalLM.from_pretrained(options.folder / "policy", dtype=torch.float32),
                args=trl.DPOConfig(**common, beta=0.1),
                processing_class=tokenizer,
                train_dataset=data,
                callbacks=[clock],
            )
    trainer.train()
    lengths = [len(p.split()) + len(c.split()) for p, c in zip(prompts, chosen, strict=True)]
    if options.work != "sft":
        lengths = [n + len(p.split()) + len(r.split()) for n, p, r in zip(lengths, prompts, rejected, strict=True)]
    steps = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    tokens = sum(lengths) / len(lengths) * workload.FIT_BATCH
    return {"tokens_per_s": tokens / statistics.median(steps[1:])}


def measure(options: workload.Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = ppo(options, folder) if options.work == "ppo" else fitting(options, folder)
    result["peak_memory_mib"] = workload.peak_memory_mib(options.device)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    workload.run_command(measure, __doc__)
