"""What the whole pipeline needs of a checkpoint, asked before its first stage trains."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
import transformers

from components.config import LanguageModel
from components.core.checks import require_finite
from components.engines.generation import generate
from components.engines.sampling import draw_uniforms
from components.errors import ConfigError
from components.memory import is_out_of_memory
from components.models.checkpoint_tokenizer import bad_checkpoint
from components.models.guided import output_and_hidden
from components.models.holding import refused_attention
from components.models.loading import positions_of
from components.models.scalar_model import ScalarModel, scalar_class
from components.models.text import Codec
from components.passes.forward import position_ids

logger = logging.getLogger("proximal")


def require_usable_config(config: LanguageModel) -> None:
    """Refuse what the checkpoint's config alone shows, before its weights are read. Raises: ConfigError."""
    from transformers import AutoConfig

    if (Path(config.checkpoint) / "adapter_config.json").exists():
        raise _refusal(
            config,
            expected="a whole model",
            found="an adapter (adapter_config.json), which is weights to be added to another model",
            do="merge it into its base model (peft's merge_and_unload), save that, and name its folder",
        )
    try:
        settings = AutoConfig.from_pretrained(config.checkpoint, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError) as fault:
        raise bad_checkpoint(config, fault) from fault
    if quantised := getattr(settings, "quantization_config", None):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise _refusal(
            config,
            expected="weights of floating-point numbers, which can be trained",
            found=f"quantised weights (quantization_config: {method})",
            do="name the checkpoint that these were made from",
        )
    if settings.get_text_config() is not settings:
        raise _refusal(
            config,
            expected="a model of text alone",
            found=f"a model of several kinds of input ({settings.model_type})",
            do="choose a checkpoint of text alone, such as the text model of the same family",
        )


def require_usable(codec: Codec, policy: Any, config: LanguageModel) -> None:
    """Refuse a loaded checkpoint that a later stage would fail on; a token is generated and scored to see.

    Raises:
        ConfigError: the class, its scalar form, its cache, its positions or its embeddings are not what is needed.
    """
    name = type(policy).__name__
    if getattr(transformers, name, None) is not type(policy):
        raise _refusal(
            config,
            expected="a model class of transformers: later stages load the policy from its files alone",
            found=f"{name}, code of the checkpoint's own (language_model.trust_remote_code)",
            do="choose a checkpoint whose class transformers has, or set language_model.trust_remote_code: false if "
            "it has both",
        )
    if policy._is_stateful:
        raise _no_cache(config, name)
    limit, needed = positions_of(policy), config.max_prompt_tokens + config.max_response_tokens
    if limit is not None and needed > limit:
        raise ConfigError(
            "prompt and response are longer together than the checkpoint can read",
            where="language_model.max_prompt_tokens, language_model.max_response_tokens",
            expected=f"at most {limit} together, the positions of {config.checkpoint}",
            found=f"{config.max_prompt_tokens} + {config.max_response_tokens} = {needed}",
            do="lower one of them",
        )
    _require_lasting_frequencies(policy, config, needed)
    _require_embeddings(codec, policy, config)
    [prompt] = codec.encode_prompts(["a"])
    tokens = torch.tensor([prompt], device=policy.device)
    inputs = {"attention_mask": torch.ones_like(tokens), "position_ids": position_ids(tokens >= 0)}
    with torch.no_grad():
        require_finite("the scores by the checkpoint's trunk", _with_head(policy)(input_ids=tokens, **inputs))
        if getattr(policy(input_ids=tokens, use_cache=True, **inputs), "past_key_values", None) is None:
            raise _no_cache(config, name)
    count = min(2, config.max_response_tokens)
    uniforms = draw_uniforms(1, count, torch.Generator().manual_seed(0))
    generate(policy, codec, [prompt], uniforms, temperature=1.0, batch_size=1)


def require_attention(policy: Any, config: LanguageModel, device: torch.device) -> None:
    """See that the attention named in params works on this device, where the policy then stays; asked of nothing else.

    Raises:
        ConfigError: it does not.
    """
    if config.attn_implementation is None:
        return
    policy.to(device)
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]], device=device)
    try:
        with torch.no_grad():
            policy(input_ids=torch.zeros_like(mask), attention_mask=mask, position_ids=position_ids(mask))
    except (ImportError, NotImplementedError, RuntimeError, ValueError) as fault:
        if is_out_of_memory(fault):
            raise
        raise refused_attention(config, fault) from fault


def require_chunks(policy: Any, config: LanguageModel) -> None:
    """See that logits are what the LM head gives, if they are to be made in chunks; asked of nothing else.

    Raises:
        ConfigError: the model does more to them, or its head is of another kind.
    """
    if config.vocabulary_chunk is None:
        return
    head = policy.get_output_embeddings()
    found = f"{type(policy).__name__}, whose head is a {type(head).__name__}"
    if type(head) is torch.nn.Linear:
        tokens = torch.arange(4, device=policy.device)[None]
        with torch.no_grad():
            output, hidden = output_and_hidden(policy, input_ids=tokens)
            if torch.equal(output.logits.to(hidden.dtype), head(hidden)):
                return
        found = f"{type(policy).__name__}, which changes what its head gives"
    raise ConfigError(
        "logprobs cannot be computed in chunks of the vocabulary",
        where="language_model.vocabulary_chunk",
        expected="a model whose logits are a linear head of its hidden states, and nothing more",
        found=found,
        do="set it to null; a smaller microbatch_size saves memory too",
    )


def _require_lasting_frequencies(policy: Any, config: LanguageModel, needed: int) -> None:
    """LongRoPE has other rotary frequencies once the longest text of a batch is beyond what the model first learned.

    A response that grows beyond it would have a cache of the old ones, and a text's logprobs would depend on the batch.
    """
    settings = policy.config.get_text_config()
    rope: dict[str, Any] = getattr(settings, "rope_parameters", None) or {}
    limits = [
        each.get("original_max_position_embeddings") or getattr(settings, "original_max_position_embeddings", 0)
        for each in (rope, *rope.values())
        if isinstance(each, dict) and each.get("rope_type") == "longrope"  # some have a section for each kind of layer
    ]
    if limits and needed > min(limits):
        raise ConfigError(
            "the checkpoint's positions change where a text becomes long",
            where="language_model.max_prompt_tokens, language_model.max_response_tokens",
            expected=f"at most {min(limits)} together (original_max_position_embeddings of {config.checkpoint}), up to "
            "which its rotary frequencies (longrope) stay the same",
            found=f"{config.max_prompt_tokens} + {config.max_response_tokens} = {needed}",
            do="lower one of them",
        )


def _with_head(policy: Any) -> ScalarModel:
    """The policy's trunk itself under a head of zeros, if it fits there. Raises: ConfigError."""
    classifier_class = scalar_class(policy)
    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    config.score_mean, config.score_std = 0.0, 1.0
    with torch.device("meta"):
        classifier = classifier_class(config)
    trunk, own = (
        {name: weight.shape for name, weight in model.base_model.state_dict().items()} for model in (classifier, policy)
    )
    if not hasattr(classifier, "score") or trunk != own:
        raise ConfigError(
            "this architecture has no scalar form",
            where="language_model.checkpoint",
            expected=f"a {classifier_class.__name__} with the trunk of {type(policy).__name__} and a head `score`",
            found="another trunk or head",
            do="choose a checkpoint of another architecture, such as Llama, Qwen, Mistral or GPT-2",
        )
    setattr(classifier, classifier.base_model_prefix, policy.base_model)
    classifier.score.to_empty(device=policy.device)
    torch.nn.init.zeros_(classifier.score.weight)
    return ScalarModel(classifier)


def _require_embeddings(codec: Codec, policy: Any, config: LanguageModel) -> None:
    """Every token that a text can become has an embedding; padding, which nobody reads, becomes the end token."""
    rows, tokenizer = policy.get_input_embeddings().weight.shape[0], codec.tokenizer
    beyond = {text: number for text, number in tokenizer.get_vocab().items() if number >= rows}
    is_padding = set(beyond.values()) == {tokenizer.pad_token_id}
    if is_padding and tokenizer.pad_token not in (config.prompt_template or str(tokenizer.chat_template)):
        logger.info("the pad token %s has no embedding: the end token pads instead", tokenizer.pad_token)
        tokenizer.pad_token = tokenizer.eos_token
        beyond = {}
    if beyond:
        named = ", ".join(f"{text} ({number})" for text, number in sorted(beyond.items(), key=lambda item: item[1])[:5])
        raise _refusal(
            config,
            expected=f"tokens with ids below {rows}, the rows of the model's embeddings",
            found=f"{len(beyond)} tokens beyond: {named}",
            do="resize the model's embeddings (resize_token_embeddings) and save it, or take its own tokenizer",
        )


def _no_cache(config: LanguageModel, name: str) -> ConfigError:
    return _refusal(
        config,
        expected="a model that answers by a cache of keys and values",
        found=f"{name}, which keeps a state instead",
        do="choose a transformer, such as Llama, Qwen, Mistral or GPT-2",
    )


def _refusal(config: LanguageModel, *, expected: str, found: str, do: str) -> ConfigError:
    return ConfigError(
        "the checkpoint cannot be aligned",
        where=f"language_model.checkpoint: {config.checkpoint}",
        expected=expected,
        found=found,
        do=do,
    )
