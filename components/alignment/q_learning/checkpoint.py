"""The state of Q-learning between iterations and between cycles.

The stored policy has what decoding needs: value head and target heads. The state has the trained heads, the optimiser
and the progress. All random numbers come from (seed, iteration), so there is no generator state to keep.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from components.alignment.method import load_iteration, save_iteration
from components.alignment.q_learning.model import QLearner
from components.config import QLearning
from components.errors import ArtifactError
from components.models.guided import HEADS_FILE, GuidedPolicy, load_weights, new_heads
from components.models.loading import load_policy, save_policy
from components.models.text import Codec
from components.seeding import derive_seed
from components.training.optimizer_state import load_optimizer, save_optimizer


@dataclass(frozen=True)
class Checkpoint:
    """All that an iteration changes. `guided` decodes with the learner's own policy and value head, not with copies.

    Args:
        iteration: how many are done, over all cycles.
    """

    learner: QLearner
    guided: GuidedPolicy
    optimizer: torch.optim.Optimizer
    iteration: int


def start(source: Path, settings: QLearning, seed: int, device: torch.device) -> Checkpoint:
    """Go on from the state below `source`, or begin with its policy and new heads where it has none.

    Raises:
        ArtifactError: a file is absent, corrupt, or of another model.
    """
    policy = load_policy(source / "policy")
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
    optimizer = make_optimizer(learner, settings)
    if goes_on:
        load_optimizer(state / "optimizer.safetensors", learner, optimizer)
    return Checkpoint(learner, guided, optimizer, load_iteration(source) if goes_on else 0)


def make_optimizer(learner: QLearner, settings: QLearning) -> torch.optim.Optimizer:
    """AdamW over policy and heads, each with its own learning rate; the order of parameters is the model's own."""
    heads = [*learner.value_head.parameters(), *learner.q_heads.parameters()]
    groups = [{"params": list(learner.policy.parameters())}, {"params": heads}]
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)


def save(folder: Path, checkpoint: Checkpoint, codec: Codec) -> None:
    """Write policy/ and state/ below `folder`."""
    save_policy(checkpoint.guided, codec, folder / "policy")
    state = folder / "state"
    save_optimizer(state / "optimizer.safetensors", checkpoint.learner, checkpoint.optimizer)
    save_file(checkpoint.learner.q_heads.state_dict(), state / HEADS_FILE)
    save_iteration(folder, checkpoint.iteration)
