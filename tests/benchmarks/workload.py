"""The work that both sides do: checkpoints, prompts and settings. Imported in both environments: click, torch,
transformers.

Sizes: S = 4 layers, hidden 128, vocabulary 512; M = 6 layers, hidden 384, vocabulary 2,048; L, for a GPU = 24 layers,
hidden 896, vocabulary 32,000 (0.44 billion parameters). All Llama, from scratch.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

SHAPES = {
    "S": {"layers": 4, "hidden": 128, "heads": 4, "intermediate": 512, "vocabulary": 512},
    "M": {"layers": 6, "hidden": 384, "heads": 6, "intermediate": 1024, "vocabulary": 2048},
    "L": {"layers": 24, "hidden": 896, "heads": 14, "intermediate": 4864, "vocabulary": 32000},
}
PAD_ID, EOS_ID = 0, 1
SHORTEST_PROMPT, LONGEST_PROMPT = 8, 56  # about 32 on average
MEAN_LENGTH_WITH_EOS = 24  # what the end token's probability is set to
EPOCHS, MINIBATCHES, MICROBATCH = 4, 2, 16
LEARNING_RATE, KL_COEF, VALUE_LOSS_COEF = 3e-6, 0.05, 0.1
FIT_BATCH, FIT_STEPS = 32, 8


def _clock_behind_the_gpu() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


CLOCKS: dict[str, Callable[[], float]] = {
    "cpu": time.process_time,
    "wall": time.perf_counter,
    "gpu": _clock_behind_the_gpu,
}


def make(folder: Path, size: str, seed: int = 1) -> None:
    """Write policy/, scalar/ (reward model and first value model) and prompts.json below `folder`."""
    torch.manual_seed(seed)
    shape = SHAPES[size]
    config: dict[str, Any] = {
        "vocab_size": shape["vocabulary"],
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["intermediate"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "max_position_embeddings": 1024,
        "pad_token_id": PAD_ID,
        "bos_token_id": None,
        "eos_token_id": EOS_ID,
    }
    policy: Any = LlamaForCausalLM(LlamaConfig(**config, tie_word_embeddings=False))
    policy.eval()
    _let_it_end(policy, shape["vocabulary"])
    policy.save_pretrained(folder / "policy")
    with_one_score = LlamaConfig(**(config | {"num_labels": 1}))
    scalar: Any = LlamaForSequenceClassification(with_one_score)  # type: ignore[no-untyped-call]
    torch.nn.init.normal_(scalar.score.weight, std=1.0 / (shape["hidden"] + 1) ** 0.5)
    scalar.config.score_mean, scalar.config.score_std = 0.0, 1.0
    scalar.save_pretrained(folder / "scalar")
    _save_tokenizer(folder / "policy", shape["vocabulary"])
    prompts = random_rows(4096, SHORTEST_PROMPT, LONGEST_PROMPT, shape["vocabulary"], seed)
    (folder / "prompts.json").write_text(json.dumps(prompts))


def random_rows(count: int, shortest: int, longest: int, vocabulary: int, seed: int) -> list[list[int]]:
    """Rows of random words, their lengths equally likely between the two."""
    numbers = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=numbers).tolist()
    return [torch.randint(2, vocabulary, (length,), generator=numbers).tolist() for length in lengths]


@torch.no_grad()
def _let_it_end(policy: Any, vocabulary: int) -> None:
    """Give the end token a probability such that responses have MEAN_LENGTH_WITH_EOS tokens.

    All embeddings share a constant part, which the final hidden states keep, and the end token's row of the head
    points along it.
    """
    constant = torch.randn(policy.config.hidden_size) * 0.05
    policy.get_input_embeddings().weight.add_(constant)
    rows = torch.randint(2, vocabulary, (64, 64))
    along = (policy.model(rows).last_hidden_state @ constant).mean()
    policy.lm_head.weight[EOS_ID] = constant * math.log((vocabulary - 1) / (MEAN_LENGTH_WITH_EOS - 1)) / along


def _save_tokenizer(folder: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD_ID, "<eos>": EOS_ID} | {f"w{number}": number for number in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"
    )
    fast.save_pretrained(folder)


def text_of(rows: list[list[int]]) -> list[str]:
    """Words that the tokenizer turns back into the same ids."""
    return [" ".join(f"w{token}" for token in row) for row in rows]


def preferences(size: str) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Prompts with a chosen and a rejected response, enough for a few optimiser steps; each response ends."""
    vocabulary, count = SHAPES[size]["vocabulary"], FIT_BATCH * FIT_STEPS
    prompts = random_rows(count, SHORTEST_PROMPT, LONGEST_PROMPT, vocabulary, seed=2)
    sides = [[[*row, EOS_ID] for row in random_rows(count, 8, 47, vocabulary, seed)] for seed in (3, 4)]
    return prompts, sides[0], sides[1]


def flops_of_updates(size: str, lengths: list[int], responses: int) -> float:
    """Operations of the matrix products of all epochs, policy and value model, forward and backward (three times the
    forward), with no padding and a causal attention; the head of the policy at response tokens only."""
    shape = SHAPES[size]
    hidden, layers = shape["hidden"], shape["layers"]
    weights = layers * (4 * hidden**2 + 3 * hidden * shape["intermediate"])
    attention = layers * 2 * hidden * sum(length**2 for length in lengths)
    forward = 2 * (2 * weights * sum(lengths) + attention) + 2 * hidden * shape["vocabulary"] * responses
    return 3.0 * forward * EPOCHS


def matmul_peak(precision: str, device: str, clock: Callable[[], float]) -> float:
    """GFLOP/s of a large matrix product in the precision given, the best of some."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = 1536 if device == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    best = math.inf
    for _ in range(8):
        started = clock()
        left @ right
        best = min(best, clock() - started)
    return 2 * size**3 / best / 1e9


def peak_memory_mib(device: str) -> float:
    """Of this process: resident, or what tensors took of the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plain_first_update(
    folder: Path, device: str, pairs: list[tuple[list[int], list[int]]], advantages: list[torch.Tensor]
) -> dict[str, float]:
    """Value loss and gradient norms of the first step: plain Hugging Face in float32, one unpadded sequence at a time.

    At the first step the ratio is 1 and the policy is its own reference, so that rewards are the scores alone.

    Args:
        advantages: whitened, as they enter the policy's gradient; those of the value loss are computed here.
    """
    policy: Any = LlamaForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    value: Any = LlamaForSequenceClassification.from_pretrained(folder / "scalar", dtype=torch.float32)
    policy.to(device)
    value.to(device)
    count = sum(len(response) for _, response in pairs)
    value_loss = 0.0
    for (prompt, response), advantage in zip(pairs, advantages, strict=True):
        tokens = torch.tensor([prompt + response], device=device)
        before = slice(len(prompt) - 1, -1)
        logprobs = (
            policy(tokens)
            .logits[0, before]
            .log_softmax(-1)[torch.arange(len(response), device=device), tokens[0, len(prompt) :]]
        )
        (-(advantage * logprobs).sum() / count).backward()
        scalars = value.score(value.model(tokens).last_hidden_state)[0, :, 0]
        values, score = scalars[before], float(scalars[-1].detach())  # the reward model is the first value model
        following, returns = 0.0, []
        numbers = values.tolist()
        for step in reversed(range(len(numbers))):
            reward = score if step == len(numbers) - 1 else 0.0
            after = numbers[step + 1] if step + 1 < len(numbers) else 0.0
            following = reward + after - numbers[step] + 0.95 * following
            returns.append(following + numbers[step])
        loss = 0.5 * (values - torch.tensor(returns[::-1], device=device)).square().sum() / count
        (VALUE_LOSS_COEF * loss).backward()
        value_loss += float(loss.detach())

    def norm(model: Any) -> float:
        return math.sqrt(
            sum(float(weight.grad.square().sum()) for weight in model.parameters() if weight.grad is not None)
        )

    return {"value_loss": value_loss, "policy_gradient_norm": norm(policy), "value_gradient_norm": norm(value)}


@dataclass(frozen=True)
class Options:
    """What is measured, and where: the command line of both sides."""

    folder: Path
    work: str
    size: str
    precision: str
    eos: str
    device: str
    clock: str
    updates: int
    rollouts: int
    response_tokens: int
    check: bool


def run_command(measure: Callable[[Options], None], about: str | None) -> None:
    """Read the command line and measure."""

    @click.command(help=about)
    @click.option("--folder", type=click.Path(path_type=Path), required=True, help="What `make` has written.")
    @click.option("--work", type=click.Choice(["ppo", "sft", "reward_model", "dpo"]), required=True)
    @click.option("--size", type=click.Choice(list(SHAPES)), required=True)
    @click.option("--precision", type=click.Choice(["float32", "bf16"]), required=True)
    @click.option("--eos", type=click.Choice(["on", "off"]), default="off", show_default=True)
    @click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
    @click.option("--clock", type=click.Choice(list(CLOCKS)), default="wall", show_default=True)
    @click.option("--updates", type=int, default=2, show_default=True, help="After one to warm up.")
    @click.option("--rollouts", type=int, default=64, show_default=True)
    @click.option("--response-tokens", type=int, default=48, show_default=True)
    @click.option("--check", is_flag=True, help="Compare one step with plain Hugging Face; ours alone.")
    def command(**options: Any) -> None:
        measure(Options(**options))

    command()
