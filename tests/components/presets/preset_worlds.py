"""Tiny random checkpoints of the architectures that presets name, as their families ship them, and projects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from architectures import LLAMA3_ROPE
from chats import tokenizer_of
from ruamel.yaml import YAML

from components.artifacts import write_jsonl
from components.config import Params, load_params

ROOT = Path(__file__).resolve().parents[3]
PRESETS = ROOT / "infra" / "presets"
Tree = dict[str, Any]

# What makes a preset tiny: everything else is as it is shipped.
_TRAINED: Tree = {"epochs": 1, "batch_size": 4, "microbatch_size": 2}
_SCORER: Tree = _TRAINED | {"normalisation_prompts": 4}
OVERLAY: Tree = {
    "compute": {
        "accelerate_config": "infra/accelerate/cpu_bf16.yaml",  # bfloat16 is mixed in as on the GPU
        "cpu_threads": dict.fromkeys(("sft", "reward_model", "judge", "alignment", "evaluation", "promotion"), 1),
    },
    "data_validation": {
        "max_near_duplicate_fraction": 1.0,
        "validation_fraction": 0.1,
        "test_fraction": 0.2,
        "judge_fraction": 0.4,
        "heldout_fraction": 0.3,
        "min_heldout_prompts": 2,
    },
    "language_model": {
        "checkpoint": "models/tiny",
        "checkpoint_files": "models/tiny",
        "max_prompt_tokens": 96,
        "max_response_tokens": 8,
        "vocabulary_chunk": 64,
    },
    "sft": {"batch_size": 4, "microbatch_size": 2},
    "reward_model": _SCORER,
    "judge": _SCORER,
    "policy_gradient": {
        "iterations_per_cycle": 1,
        "rollouts_per_iteration": 8,
        "minibatches": 2,
        "microbatch_size": 2,
        "learning_rate_warmup_iterations": 0,
    },
    "measurement": {"batch_size": 8},
    "evaluation": {"shown_samples": 2},
    "promotion": {"min_prompts": 2},
}


def _sizes(vocabulary: int) -> Tree:
    """Two layers, four heads of which two share keys and values, and weights so large that tokens differ."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }


def _qwen2(sizes: Tree) -> Any:
    """Queries, keys and values have biases; the embeddings are the head."""
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes, tie_word_embeddings=True))


def _llama(sizes: Tree) -> Any:
    """Rotary frequencies stretched as in Llama 3.1, and a head of its own."""
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, rope_parameters=LLAMA3_ROPE))


def _gemma3(sizes: Tree) -> Any:
    """A layer that sees eight tokens, and one that sees all; heads wider than the hidden size has room for."""
    more: Tree = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "sliding_window_pattern": 2}
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**sizes, **more))


def _phi3(sizes: Tree) -> Any:
    """One layer for queries, keys and values; one for gate and up; every layer sees eight tokens."""
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    return transformers.Phi3ForCausalLM(transformers.Phi3Config(**sizes | ids, sliding_window=8))


def _mistral(sizes: Tree) -> Any:
    """Every layer sees eight tokens."""
    return transformers.MistralForCausalLM(transformers.MistralConfig(**sizes, sliding_window=8))


# By architecture: the model, and the tokenizer with its chat template.
FAMILIES = {
    "qwen2": (_qwen2, "chatml"),
    "llama": (_llama, "llama3"),
    "gemma3_text": (_gemma3, "gemma"),
    "phi3": (_phi3, "phi"),
    "mistral": (_mistral, "mistral"),
}


def write_checkpoint(folder: Path, architecture: str) -> None:
    """Several tokens end a response, as in the generation configs of these families."""
    make, family = FAMILIES[architecture]
    tokenizer = tokenizer_of(family)
    torch.manual_seed(5)
    model = make(_sizes(len(tokenizer)))
    with torch.no_grad():  # biases and norms start at 0 and 1, where a mistake would not show
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.2 * torch.randn_like(weight))
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, len(tokenizer) - 1]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_data(folder: Path, count: int = 60) -> None:
    """Comparisons of dialogues, and nothing else: prompts and demonstrations come of them."""
    things = ("sea", "well", "page", "html", "question", "colour")

    def turns(number: int, text: str) -> list[Tree]:
        asked = f"Name the {things[number % 6]} {number}."
        first = [{"role": "user", "content": asked}]
        if number % 3 == 0:  # some of several turns
            first += [
                {"role": "assistant", "content": "Which is it?"},
                {"role": "user", "content": f"The largest {number}."},
            ]
        return [*first, {"role": "assistant", "content": text}]

    answers = ("Yes.", "The sea.", "Blue is one.", "Please be kind.", "No, short.")
    rows = [
        {"chosen": turns(number, answers[number % 5]), "rejected": turns(number, answers[(number + 1) % 5])}
        for number in range(count)
    ]
    write_jsonl(folder / "comparisons.jsonl", rows)


def write_preset(folder: Path, preset: str, changes: Tree) -> Params:
    """A preset with the overlay, as the project's params."""
    content: Tree = YAML(typ="safe").load(PRESETS / preset)
    for tree in (OVERLAY, changes):
        for section, values in tree.items():
            content[section] = content[section] | values if isinstance(values, dict) else values
    content["cycles"] = {"1": content["cycles"]["1"]}
    YAML(typ="safe").dump(content, folder / "params.yaml")
    return load_params(folder / "params.yaml")
