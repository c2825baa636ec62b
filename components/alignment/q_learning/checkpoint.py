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
from components.training.sharding import whole_weights


@dataclass(frozen=True)
class Checkpoint:
    """All that an iteration changes.

    Args:
        guided: decodes with the learner's own policy and value head, not with copies; but where the learner is trained
            in shards, its value head is a whole copy: see `refresh`.
    """

    learner: QLearner
    guided: GuidedPolicy

    @torch.no_grad()
    def refresh(self) -> None:
        """Have the guided policy's value head be the trained one, after every update; every process has to call it."""
        trained, copied = self.learner.value_head, self.guided.value_head
        if trained is not copied:
            for weight, now in zip(copied.parameters(), whole_weights(trained), strict=True):
                weight.copy_(now)

    def with_whole(self, learner: QLearner) -> Checkpoint:
        """The same around the learner that was gathered from its shards."""
        if learner is self.learner:
            return self
        return Checkpoint(learner, self.guided.around(learner.policy))


def start(
    source: Path,
    settings: QLearning,
    seed: int,
    device: torch.device,
    held_as: LanguageModel | None = None,
    *,
    in_shards: bool = False,
) -> Checkpoint:
    """Go on from the state below `source`, or begin with its policy and new heads where it has none.

    Args:
        in_shards: the learner will be sharded, which reads of its weights what it keeps, from where they lie.
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
    learner = QLearner(guided.policy, guided.value_head, q_heads)
    if in_shards:
        guided.value_head = copy.deepcopy(guided.value_head).to(device)
        guided.target_q_heads.to(device)
        return Checkpoint(learner, guided)
    guided.to(device)
    learner.to(device)
    return Checkpoint(learner, guided)


def save(folder: Path, checkpoint: Checkpoint, codec: Codec) -> None:
    """Write policy/ and state/ below `folder`."""
    save_policy(checkpoint.guided, codec, folder / "policy")
    state = folder / "state"
    state.mkdir()
    save_file(checkpoint.learner.q_heads.state_dict(), state / HEADS_FILE)
