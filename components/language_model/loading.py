"""Loading, making and saving models: causal language models, and scalar models (reward, judge, value)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers.modeling_utils  # the slow part, here so that launch sees to its import
from safetensors import SafetensorError
from torch import Tensor, nn

from components.config import LanguageModel
from components.errors import ArtifactError, ConfigError
from components.language_model.text import Codec, TextFormat
from components.profile import span


class ScalarModel(nn.Module):
    """A Hugging Face sequence classifier with one label, read at every token.

    As a reward model it is read at the last token of the response, as a value model before each of them. `mean` and
    `std` (in the stored config) normalise its output.
    """

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """The normalised scalar at every position.

        Shapes: all arguments and the result (B, S).
        """
        hidden = self.classifier.base_model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state
        config = self.classifier.config
        scalars: Tensor = self.classifier.score(hidden).squeeze(-1).float()
        normalised: Tensor = (scalars - config.score_mean) / config.score_std
        return normalised


def new_policy(config: LanguageModel, vocabulary_size: int, token_ids: dict[str, Any], seed: int) -> Any:
    """A small Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    scratch = config.scratch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary_size,
                hidden_size=scratch.hidden_size,
                intermediate_size=scratch.intermediate_size,
                num_hidden_layers=scratch.layers,
                num_attention_heads=scratch.attention_heads,
                max_position_embeddings=config.max_prompt_tokens + config.max_response_tokens,
                tie_word_embeddings=True,
                **token_ids,
            )
        )


def _model_class(folder: Path) -> Any:
    """The concrete class that the config names: loading it alone is quicker than the Auto classes' machinery."""
    names = json.loads((folder / "config.json").read_text())["architectures"]
    return getattr(transformers, names[0])


@span("models")
def _load(folder: Path) -> Any:
    try:
        return _from_pretrained(_model_class(folder), folder)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError) as fault:
        raise ArtifactError(
            "a stored model cannot be loaded",
            where=str(folder),
            expected="config.json and model.safetensors, whole",
            found=" ".join(str(fault).split())[:300],
            do="delete the folder and run `dvc repro`, which makes it again",
        ) from fault


def _from_pretrained(model_class: Any, source: str | Path, **options: Any) -> Any:
    """A model with all of its weights: Hugging Face would draw those that a file lacks at random, and only warn."""
    model, report = model_class.from_pretrained(
        source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
    )
    if report["missing_keys"]:
        raise ValueError(f"no weights for {', '.join(sorted(report['missing_keys']))}")
    return _no_dropout(model)


def _no_dropout(model: Any) -> Any:
    """Switch dropout off for good: with it, old and new logprobs of the same weights differ and the ratio lies."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):  # as in the attention of Llama, Qwen and their kin
                setattr(module, name, 0.0)
    return model.eval()


def load_policy(folder: Path) -> Any:
    """A causal language model that a stage stored.

    Raises:
        ArtifactError: absent, half-written or corrupt.
    """
    return _load(folder)


@span("models")
def load_checkpoint(config: LanguageModel) -> Any:
    """A causal language model from a folder or from the Hugging Face hub, as params name it.

    Raises:
        ConfigError: nothing can be loaded from there.
    """
    from transformers import AutoModelForCausalLM

    try:
        return _from_pretrained(AutoModelForCausalLM, config.checkpoint, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, SafetensorError) as fault:
        raise _bad_checkpoint(config, fault) from fault


def load_checkpoint_tokenizer(config: LanguageModel) -> Any:
    """The tokenizer beside `load_checkpoint`'s model."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(config.checkpoint, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError) as fault:
        raise _bad_checkpoint(config, fault) from fault
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the checkpoint's tokenizer has no end-of-sequence token",
            where=f"language_model.checkpoint: {config.checkpoint}",
            expected="a tokenizer with an eos_token",
            do="add one to the tokenizer's configuration",
        )
    return tokenizer


def _bad_checkpoint(config: LanguageModel, fault: Exception) -> ConfigError:
    return ConfigError(
        "the checkpoint cannot be loaded",
        where=f"language_model.checkpoint: {config.checkpoint}",
        expected='"scratch", a folder with a Hugging Face model, or the name of one on the hub',
        found=" ".join(str(fault).split())[:300],
        do="correct the name, or put the model's files there (safetensors only)",
    )


def load_codec(folder: Path) -> Codec:
    """The tokenizer and text format that a stage stored with a policy."""
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as fault:
        raise ArtifactError(
            "a stored tokenizer cannot be loaded",
            where=str(folder),
            expected="tokenizer.json, whole",
            found=" ".join(str(fault).split())[:300],
            do="delete the folder and run `dvc repro`, which makes it again",
        ) from fault
    return Codec(tokenizer, TextFormat.load(folder))


def new_scalar_model(policy_folder: Path, seed: int) -> ScalarModel:
    """A scalar model on the trunk of a stored policy, with a new head that starts near zero."""
    policy = load_policy(policy_folder)
    causal_class = type(policy).__name__
    name = causal_class.replace("ForCausalLM", "ForSequenceClassification").replace(
        "LMHeadModel", "ForSequenceClassification"
    )
    classifier_class = getattr(transformers, name, None)
    if classifier_class is None:
        raise ConfigError(
            "this architecture has no scalar form",
            where="language_model.checkpoint",
            expected="an architecture with a ...ForSequenceClassification class in transformers",
            found=causal_class,
            do="choose a checkpoint of another architecture, such as Llama, Qwen, Mistral or GPT-2",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = classifier_class.config_class.from_pretrained(policy_folder, num_labels=1)
        config.score_mean, config.score_std = 0.0, 1.0
        classifier = classifier_class(config).to(torch.float32)
        nn.init.normal_(classifier.score.weight, std=1.0 / (config.hidden_size + 1) ** 0.5)
    classifier.base_model.load_state_dict(policy.base_model.state_dict())
    return ScalarModel(_no_dropout(classifier))


def load_scalar_model(folder: Path) -> ScalarModel:
    """A scalar model that a stage stored.

    Raises:
        ArtifactError: absent, half-written or corrupt.
    """
    return ScalarModel(_load(folder))


@span("models")
def save_policy(policy: Any, codec: Codec, folder: Path) -> None:
    """Store a policy with its tokenizer and text format."""
    policy.save_pretrained(folder)
    codec.tokenizer.save_pretrained(folder)
    codec.format.save(folder)


@span("models")
def save_scalar_model(model: ScalarModel, folder: Path) -> None:
    """Store a scalar model in Hugging Face's form of a sequence classifier."""
    model.classifier.save_pretrained(folder)
