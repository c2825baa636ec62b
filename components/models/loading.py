"""Loading, making and saving models: causal language models, and scalar models (reward, judge, value)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from torch import nn

from components.artifacts import read_json, reading, write_json
from components.config import LanguageModel
from components.core.rewards import EnsembleMode
from components.models.adapter_origin import is_adapter
from components.models.adapters import (
    load_adapter_classifier,
    load_adapter_policy,
    new_adapter_classifier,
)
from components.models.best_of_n import BestOfNPolicy
from components.models.checkpoint import from_pretrained, load_model
from components.models.checkpoint_tokenizer import bad_checkpoint
from components.models.ensemble import Ensemble
from components.models.guided import guided_policy, is_guided
from components.models.holding import attention_options, attention_refusals, held
from components.models.scalar_model import ScalarModel, scalar_class
from components.models.text import Codec, TextFormat

BEST_OF_N = "best_of_n.json"  # beside a policy that chooses: {"n": ...}
SCORER = "scorer"
ENSEMBLE = "ensemble.json"  # beside the folders 1, 2, ... of its members


def scratch_shape(config: LanguageModel, vocabulary_size: int, **options: Any) -> Any:
    """The config of the small Llama that `language_model.scratch` describes."""
    from transformers import LlamaConfig

    scratch = config.scratch
    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=scratch.hidden_size,
        intermediate_size=scratch.intermediate_size,
        num_hidden_layers=scratch.layers,
        num_attention_heads=scratch.attention_heads,
        max_position_embeddings=config.max_prompt_tokens + config.max_response_tokens,
        tie_word_embeddings=True,
        **options,
    )


def new_policy(config: LanguageModel, vocabulary_size: int, token_ids: dict[str, Any], seed: int) -> Any:
    """A small Llama with random weights, to be trained.

    Raises:
        ConfigError: the attention that params name is not to be had.
    """
    from transformers import LlamaForCausalLM

    shape = scratch_shape(config, vocabulary_size, **token_ids, **attention_options(config))
    with torch.random.fork_rng(devices=[]), attention_refusals(config):
        torch.manual_seed(seed)
        policy = LlamaForCausalLM(shape)
    return held(policy, config, trained=True)


def load_policy(folder: Path, config: LanguageModel | None = None, *, trained: bool = False) -> Any:
    """A causal language model that a stage stored: plain or an adapter, guided by Q heads, or choosing the best of n.

    Args:
        config: how it is held; None where there are no params: float32, and packed attention where that is known.
        trained: whether an optimiser moves its weights, which are then held in float32.
    Raises:
        ArtifactError: absent, half-written or corrupt; or the base of an adapter is missing or another one.
        ConfigError: the attention that params name is not to be had.
    """
    if is_adapter(folder):
        policy: Any = load_adapter_policy(folder, config)
    else:
        policy = load_model(folder, config, trained=trained)
    if is_guided(folder):
        return guided_policy(policy, folder)
    if not (folder / BEST_OF_N).exists():
        return policy
    with reading("best of n", folder / BEST_OF_N, "n, a number from 1 on"):
        n = read_json(folder / BEST_OF_N)["n"]
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"n: {n!r}")
    return BestOfNPolicy(policy, load_scorer(folder / SCORER, config), n).eval()


def positions_of(policy: Any) -> int | None:
    """The longest sequence of tokens that a policy was made for; None where its positions have no end."""
    config = getattr(policy, "policy", policy).config
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def load_checkpoint(config: LanguageModel) -> Any:
    """A causal language model from a folder or from the Hugging Face hub, as params name it: to be trained, or a base.

    Raises:
        ConfigError: nothing can be loaded from there, or the attention that params name is not to be had.
    """
    from transformers import AutoModelForCausalLM

    options = {"trust_remote_code": config.trust_remote_code}
    try:
        trained = config.adapter is None  # as a base it never moves
        return from_pretrained(AutoModelForCausalLM, config.checkpoint, config, trained=trained, **options)
    except (OSError, ValueError, SafetensorError) as fault:
        raise bad_checkpoint(config, fault) from fault


def stop_ids(policy: Any) -> tuple[int, ...]:
    """The ids that a checkpoint's generation_config names as ends of a response, as far as the model has them."""
    found = getattr(policy.generation_config, "eos_token_id", None)
    ids = found if isinstance(found, list) else [] if found is None else [found]
    return tuple(number for number in ids if number < policy.get_output_embeddings().weight.shape[0])


def load_codec(folder: Path) -> Codec:
    """The tokenizer and text format that a stage stored with a policy."""
    from transformers import PreTrainedTokenizerFast

    with reading("tokenizer", folder, "tokenizer.json, whole"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return Codec(tokenizer, TextFormat.load(folder))


def new_scalar_model(policy_folder: Path, seed: int, held_as: LanguageModel | None = None) -> ScalarModel:
    """A scalar model on the trunk of a stored policy, to be trained, with a new head that starts near zero."""
    if is_adapter(policy_folder):
        return ScalarModel(new_adapter_classifier(policy_folder, seed, held_as))
    policy = load_policy(policy_folder)
    classifier_class = scalar_class(policy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = classifier_class.config_class.from_pretrained(
            policy_folder, num_labels=1, **attention_options(held_as)
        )
        config.score_mean, config.score_std = 0.0, 1.0
        classifier = classifier_class(config).to(torch.float32)
        nn.init.normal_(classifier.score.weight, std=1.0 / (config.hidden_size + 1) ** 0.5)
    classifier.base_model.load_state_dict(policy.base_model.state_dict())
    return ScalarModel(held(classifier, held_as, trained=True))


def load_scalar_model(folder: Path, config: LanguageModel | None = None, *, trained: bool = False) -> ScalarModel:
    """A scalar model that a stage stored; its arguments are those of `load_policy`.

    Raises:
        ArtifactError: absent, half-written or corrupt; or the base of an adapter is missing or another one.
    """
    if is_adapter(folder):
        return ScalarModel(load_adapter_classifier(folder, config))
    return ScalarModel(load_model(folder, config, trained=trained))


def load_scorer(folder: Path, config: LanguageModel | None = None) -> nn.Module:
    """A reward model or judge that a stage stored: a scalar model, or the `Ensemble` of several.

    Args:
        config: how it is held; see `load_policy`.
    Raises:
        ArtifactError: absent, half-written or corrupt.
    """
    if not (folder / ENSEMBLE).exists():
        return load_scalar_model(folder, config)
    with reading("ensemble", folder / ENSEMBLE, "members, ensemble and std_coef"):
        content = read_json(folder / ENSEMBLE)
        count, mode, std_coef = int(content["members"]), content["ensemble"], float(content["std_coef"])
        if count < 1 or mode not in get_args(EnsembleMode):
            raise ValueError(f"{count} members, {mode!r}")
    members = [load_scalar_model(folder / str(number), config) for number in range(1, count + 1)]
    return Ensemble(members, mode, std_coef).eval()


def first_member(scorer_folder: Path) -> Path:
    """The folder of a stored scorer's first scalar model, or of its only one."""
    return scorer_folder / "1" if (scorer_folder / ENSEMBLE).exists() else scorer_folder


def save_scorer(members: list[ScalarModel], mode: EnsembleMode, std_coef: float, folder: Path) -> None:
    """Store a reward model or judge; one of a single member is stored as that scalar model."""
    if len(members) == 1:
        save_scalar_model(members[0], folder)
        return
    for number, member in enumerate(members, start=1):
        save_scalar_model(member, folder / str(number))
    write_json(folder / ENSEMBLE, {"members": len(members), "ensemble": mode, "std_coef": std_coef})


def save_policy(policy: Any, codec: Codec, folder: Path) -> None:
    """Store a policy with its tokenizer and text format."""
    policy.save_pretrained(folder)
    codec.tokenizer.save_pretrained(folder)
    codec.format.save(folder)


def save_best_of_n(policy_folder: Path, scorer_folder: Path, n: int, folder: Path) -> None:
    """Store the best of n responses of a stored policy, chosen by a stored scorer, as a policy of its own."""
    shutil.copytree(policy_folder, folder)
    shutil.copytree(scorer_folder, folder / SCORER)
    write_json(folder / BEST_OF_N, {"n": n})


def save_scalar_model(model: ScalarModel, folder: Path) -> None:
    """Store a scalar model in Hugging Face's form of a sequence classifier."""
    model.classifier.save_pretrained(folder)
