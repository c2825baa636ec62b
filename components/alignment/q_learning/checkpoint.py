"""The state of Q-learning between iterations and between cycles.

The stored policy has what decoding needs: value head and target heads. The state has the trained heads.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from components.alignment.q_learning.model import QLearner
from components.config import LanguageModel, QLearning
from components.errors import ArtifactError
from components.models.guided import HEADS_FILE, GuidedPolicy, load_weights, new_heads
from components.models.loading import load_policy, save_policy
from components.models.text import Codec
from components.seeding import derive_seed


@dataclass(frozen=True)
class Checkpoint:
    """All that an iteration changes. `guided` decodes with the learner's own policy and value head, not with copies."""

    learner: QLearner
    guided: GuidedPolicy


def start(
    source: Path, settings: QLearning, seed: int, device: torch.device, held_as: LanguageModel | None = None
) -> Checkpoint:
    """Go on from the state below `source`, or begin with its policy and new heads where it has none.

    Raises:
        ArtifactError: a file is absent, corrupt, or of another model.
    """
    policy = load_policy(source / "policy", held_as, trained=True)
    state = source / "state"
    goes_on = state.exists()
    if goes_on and not isinstance(policy, GuidedPolicy):
        raise ArtifactError(
            "a stored policy has no Q heads",
            where=str(source / "policy"),
            expected=f"{HEADS_FILE}, as the cycle before stores it",
            found="the state of another method",
            do="run `dvc repro`, which makes the cycles again",
        )
    if goes_on:
        guided, q_heads = policy, copy.deepcopy(policy.target_q_heads)  # of their shape
        load_weights(q_heads, state / HEADS_FILE)
    else:
        value_head, q_heads = new_heads(policy, derive_seed(seed, "q_learning", "heads"))
        guided = GuidedPolicy(policy, value_head, copy.deepcopy(q_heads), settings.decode_beta)
    guided.decode_beta = settings.decode_beta
    guided.to(device)
    learner = QLearner(guided.policy, guided.value_head, q_heads.to(device))
    return Checkpoint(learner, guided)


def save(folder: Path, checkpoint: Checkpoint, codec: Codec) -> None:
    """Write policy/ and state/ below `folder`."""
    save_policy(checkpoint.guided, codec, folder / "policy")
    state = folder / "state"
    state.mkdir()
    save_file(checkpoint.learner.q_heads.state_dict(), state / HEADS_FILE)
