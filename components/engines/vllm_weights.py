"""A policy's weights as files that vLLM reads: a whole model, or an adapter on the base that it serves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from components.digests import digest
from components.models.adapter_origin import WEIGHTS_FILE
from components.models.adapter_views import AdapterPolicy
from components.models.text import Codec


def write_weights(policy: Any, codec: Codec, folder: Path, dtype: torch.dtype | None) -> str:
    """Write the policy as vLLM loads it, and give a digest of its weights.

    A head that is tied to the embeddings is written apart, and the model as one without ties: on a CPU vLLM keeps a
    packed copy of the head, which a reload of tied weights leaves as it was (infra/decisions/0021).

    Args:
        dtype: of a whole model's weights in the files; None for the policy's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(policy, AdapterPolicy):
        policy.save_pretrained(folder)
        return digest(folder / WEIGHTS_FILE)[:16]
    state = {
        name: weight.detach().to(device="cpu", dtype=dtype or weight.dtype, copy=True)
        for name, weight in policy.state_dict().items()
    }
    written = copy.copy(policy)  # another config, the same weights
    written.config = copy.deepcopy(policy.config)
    written.config.tie_word_embeddings = False
    written.config.dtype = dtype or policy.config.dtype
    written.save_pretrained(folder, state_dict=state)
    codec.tokenizer.save_pretrained(folder)
    return digest(folder)


def base_of(policy: AdapterPolicy, adapter: Path) -> Path:
    """The folder of the base that an adapter is on, for the server to read."""
    return policy.origin.folder(adapter).resolve()
