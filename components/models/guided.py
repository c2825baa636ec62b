"""A policy guided by Q-learning: it answers by pi * exp(beta (Q - V)), with the call of a causal language model.

The heads read what the policy's own LM head reads, its last hidden state, at the positions that are asked for only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from components.artifacts import read_json, reading, write_json
from components.core.ilql import guided_logits

HEADS_FILE, SETTINGS_FILE = "q_heads.safetensors", "guided.json"


class Head(nn.Sequential):
    """Two layers on a hidden state: hidden -> 2 * hidden -> ReLU -> outputs."""

    def __init__(self, hidden_size: int, outputs: int) -> None:
        super().__init__(nn.Linear(hidden_size, 2 * hidden_size), nn.ReLU(), nn.Linear(2 * hidden_size, outputs))

    def forward(self, hidden: Tensor) -> Tensor:
        """In the head's own precision, however the policy is held. Shapes: (..., hidden) -> (..., outputs)."""
        dtype = next(self.parameters()).dtype
        outputs: Tensor = super().forward(hidden.to(dtype))  # type: ignore[no-untyped-call]
        return outputs


class QHeads(nn.ModuleList):
    """Double Q: two heads that differ in where they start, each with a value for every token of the vocabulary."""

    def __init__(self, hidden_size: int, vocabulary: int) -> None:
        super().__init__([Head(hidden_size, vocabulary) for _ in range(2)])

    def forward(self, hidden: Tensor) -> list[Tensor]:
        """Shapes: (..., hidden) -> two of (..., V)."""
        return [head(hidden) for head in self]


class GuidedPolicy(nn.Module):
    """A causal language model with a value head and two target Q heads, all that decoding needs.

    Args:
        policy: the Hugging Face model.
        decode_beta: how much the heads have to say; 0 decodes the policy itself.
    """

    def __init__(self, policy: Any, value_head: Head, target_q_heads: QHeads, decode_beta: float) -> None:
        super().__init__()
        self.policy = policy
        self.value_head = value_head
        self.target_q_heads = target_q_heads
        self.decode_beta = decode_beta

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: Any = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
    ) -> Any:
        """The output of a causal language model whose logits are guided by the smaller of the target heads.

        Args:
            logits_to_keep: of how many last positions; 0 means all.
        """
        from transformers.modeling_outputs import CausalLMOutputWithPast

        output, hidden = output_and_hidden(
            self.policy,
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
        )
        first, second = self.target_q_heads(hidden)
        values = self.value_head(hidden).squeeze(-1)
        logits = guided_logits(output.logits, torch.minimum(first, second), values, self.decode_beta)
        return CausalLMOutputWithPast(logits=logits, past_key_values=output.past_key_values)

    def around(self, policy: Any) -> GuidedPolicy:
        """Another policy, or another way to ask the same one, guided by these heads."""
        return GuidedPolicy(policy, self.value_head, self.target_q_heads, self.decode_beta)

    def save_pretrained(self, folder: Path) -> None:
        """The Hugging Face model with the heads and decode_beta beside it; `load_policy` reads them all."""
        self.policy.save_pretrained(folder)
        save_file(self._heads().state_dict(), folder / HEADS_FILE)
        write_json(folder / SETTINGS_FILE, {"decode_beta": self.decode_beta})

    def _heads(self) -> nn.ModuleDict:
        return nn.ModuleDict({"value_head": self.value_head, "target_q_heads": self.target_q_heads})


def output_and_hidden(policy: Any, **inputs: Any) -> tuple[Any, Tensor]:
    """The output of a causal language model, and what its LM head was given: the last hidden state.

    Taken on its way into the LM head, where it is already cut to logits_to_keep; to ask for all layers' hidden states
    would keep them in memory.

    Shapes: hidden (B, kept positions, hidden).
    """
    seen: list[Tensor] = []
    hook = policy.get_output_embeddings().register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        output = policy(**inputs)
    finally:
        hook.remove()
    [hidden] = seen
    return output, hidden


def new_heads(policy: Any, seed: int) -> tuple[Head, QHeads]:
    """A value head and Q heads for a policy. Their last layers start at 0, so that guidance starts with nothing to say.

    The first layers are random, so the two Q heads learn different things.
    """
    vocabulary, hidden_size = policy.get_output_embeddings().weight.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value_head, q_heads = Head(hidden_size, 1), QHeads(hidden_size, vocabulary)
    for head in (value_head, *q_heads):
        nn.init.zeros_(head[-1].weight)
        nn.init.zeros_(head[-1].bias)
    return value_head, q_heads


def is_guided(folder: Path) -> bool:
    """Whether a stored policy has heads, or what is left of them."""
    return (folder / HEADS_FILE).exists() or (folder / SETTINGS_FILE).exists()


def guided_policy(policy: Any, folder: Path) -> GuidedPolicy:
    """A loaded policy with the heads stored beside it.

    Raises:
        ArtifactError: a file is absent, corrupt, or of another policy.
    """
    guided = GuidedPolicy(policy, *new_heads(policy, seed=0), decode_beta=_decode_beta(folder / SETTINGS_FILE))
    load_weights(guided._heads(), folder / HEADS_FILE)
    return guided.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill a module with the weights of a safetensors file.

    Raises:
        ArtifactError: it is absent, corrupt, or of another module.
    """
    with reading("set of heads", path, "the weights of this policy's heads"):
        weights = load_file(path)
        expected = {name: weight.shape for name, weight in module.state_dict().items()}
        if {name: weight.shape for name, weight in weights.items()} != expected:
            raise ValueError("the names or shapes are those of another module")
        module.load_state_dict(weights)


def _decode_beta(path: Path) -> float:
    with reading("guidance", path, "decode_beta"):
        return float(read_json(path)["decode_beta"])
