"""What PPO, GRPO and RLOO keep between iterations and between cycles: models, KL coefficient, moments of scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.artifacts import read_json, reading
from components.config import LanguageModel
from components.core.stats import RunningMoments
from components.models.loading import load_policy, load_scalar_model, new_scalar_model, save_policy, save_scalar_model
from components.models.text import Codec


@dataclass(frozen=True)
class Progress:
    """What a later iteration needs to know beyond the weights."""

    kl_coef: float
    score_moments: RunningMoments


def load_model(
    policy_folder: Path, value_folder: Path | None, config: LanguageModel | None = None, value_seed: int | None = None
) -> ActorCritic:
    """The trainable pair from stored models; a reward model serves as the first value model.

    Args:
        value_folder: None for no value model, or a new one on the policy's trunk where `value_seed` is given.
    """
    policy = load_policy(policy_folder, config, trained=True)
    if value_folder is not None:
        return ActorCritic(policy, load_scalar_model(value_folder, config, trained=True))
    return ActorCritic(policy, None if value_seed is None else new_scalar_model(policy_folder, value_seed, config))


def save(folder: Path, model: ActorCritic, reference: Any, codec: Codec) -> None:
    """Write policy/ and, where there are such, state/value_model/ and state/reference/ below `folder`.

    Args:
        reference: the reference policy if it is not the SFT policy any more, else None.
    """
    save_policy(model.policy, codec, folder / "policy")
    if model.value_model is not None:
        save_scalar_model(model.value_model, folder / "state" / "value_model")
    if reference is not None:
        save_policy(reference, codec, folder / "state" / "reference")


def load_progress(folder: Path) -> Progress:
    """The progress stored below `folder`.

    Raises:
        ArtifactError: absent, corrupt, or of another version of this program.
    """
    path = folder / "state" / "progress.json"
    with reading("progress", path, "kl_coef and score_moments"):
        content = read_json(path)
        moments = RunningMoments.from_dict(content["score_moments"])
        return Progress(float(content["kl_coef"]), moments)
