"""A checkpoint that some later stage would fail on is refused before the first one trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from components.config import LanguageModel, Params
from components.engines.preflight import require_usable, require_usable_config
from components.errors import ConfigError
from components.models.checkpoint_tokenizer import load_checkpoint_tokenizer
from components.models.loading import (
    load_checkpoint,
    load_policy,
    load_scalar_model,
    new_scalar_model,
    save_scalar_model,
    stop_ids,
)
from components.models.text import Codec, TextFormat, train_tokenizer

SIZES = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def llama(**changes: Any) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | {"max_position_embeddings": 48} | changes))


def gpt2(positions: int) -> Any:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": positions}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=300, **sizes))


def gemma3_text() -> Any:
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**SIZES, head_dim=8))


def gemma3() -> Any:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(text_config=SIZES | {"head_dim": 8}, vision_config=vision)
    return transformers.Gemma3ForConditionalGeneration(config)


def granite() -> Any:
    return transformers.GraniteForCausalLM(transformers.GraniteConfig(**SIZES))


def phi3(original: int) -> Any:
    """With other rotary frequencies from that many tokens on."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": original}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    sizes = SIZES | {"max_position_embeddings": 512, "original_max_position_embeddings": original}
    sizes["initializer_range"] = 0.3
    return transformers.Phi3ForCausalLM(transformers.Phi3Config(**sizes, rope_parameters=rope))


def mamba() -> Any:
    return transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, state_size=4)
    )


@pytest.fixture
def check(tmp_path: Path, tiny_params: Callable[..., Params]) -> Callable[..., tuple[Codec, Any]]:
    """Stores a model with a tokenizer as a checkpoint, and takes it as SFT does."""

    def taken(model: Any, change: Callable[[Path], object] = lambda _: None, **settings: Any) -> tuple[Codec, Any]:
        folder = tmp_path / "checkpoint"
        torch.manual_seed(1)
        model.save_pretrained(folder)
        tokenizer: Any = train_tokenizer(["my printer counts to seven ."] * 3, 290)
        tokenizer.save_pretrained(folder)
        change(folder)
        config = tiny_params(language_model={"checkpoint": str(folder), **settings}).language_model
        return through(config)

    return taken


def through(config: LanguageModel) -> tuple[Codec, Any]:
    require_usable_config(config)
    policy = load_checkpoint(config)
    limits = (config.max_prompt_tokens, config.max_response_tokens)
    codec = Codec(
        load_checkpoint_tokenizer(config), TextFormat(config.prompt_template, *limits, stop_ids=stop_ids(policy))
    )
    require_usable(codec, policy, config)
    return codec, policy


@pytest.mark.parametrize("model", [llama, lambda: gpt2(48), gemma3_text])
def test_a_usable_checkpoint_passes_unchanged_and_draws_nothing(
    check: Callable[..., tuple[Codec, Any]], model: Callable[[], Any]
) -> None:
    made = model()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    _, policy = check(made)
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in made.state_dict().items():
        assert torch.equal(policy.state_dict()[name], weight)


def test_frequencies_that_change_with_a_texts_length_are_refused(check: Callable[..., tuple[Codec, Any]]) -> None:
    """What is refused is real: beyond the limit, one row of a batch depends on how long another is."""
    check(phi3(30), max_prompt_tokens=24, max_response_tokens=6)
    with pytest.raises(ConfigError, match="positions change where a text becomes long") as caught:
        check(phi3(30), max_prompt_tokens=24, max_response_tokens=7)
    assert "at most 30 together" in caught.value.expected and caught.value.found == "24 + 7 = 31"
    torch.manual_seed(1)
    model = phi3(30).eval()
    tokens = torch.arange(62).reshape(2, 31) + 3
    with torch.no_grad():
        short, long = (model(tokens[:, :count]).logits[0, 5] for count in (30, 31))
    assert float((short - long).abs().max()) > 1e-3


def test_gemma_3_of_text_has_the_text_models_classifier(
    check: Callable[..., tuple[Codec, Any]], tmp_path: Path
) -> None:
    _, policy = check(gemma3_text())
    policy.save_pretrained(tmp_path / "policy")
    scalar = new_scalar_model(tmp_path / "policy", seed=1)
    assert type(scalar.classifier).__name__ == "Gemma3TextForSequenceClassification"
    save_scalar_model(scalar, tmp_path / "scalar")
    tokens = torch.tensor([[5, 6, 7]])
    assert torch.equal(load_scalar_model(tmp_path / "scalar")(input_ids=tokens), scalar(input_ids=tokens))
    assert type(load_policy(tmp_path / "policy")).__name__ == "Gemma3ForCausalLM"


@pytest.mark.parametrize(
    ("model", "found"), [(granite, "GraniteForCausalLM"), (mamba, "MambaForCausalLM"), (gemma3, "gemma3")]
)
def test_an_architecture_that_a_later_stage_cannot_take_is_named(
    check: Callable[..., tuple[Codec, Any]], model: Callable[[], Any], found: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(model())
    assert "language_model.checkpoint" in caught.value.where and found in caught.value.found


def changed_config(**values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | values))

    return change


def test_quantised_weights_are_named(check: Callable[..., tuple[Codec, Any]]) -> None:
    quantised = changed_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(ConfigError, match="bitsandbytes"):
        check(llama(), quantised)


def test_an_adapter_is_named(check: Callable[..., tuple[Codec, Any]]) -> None:
    def adapter(folder: Path) -> None:
        (folder / "config.json").unlink()
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')

    with pytest.raises(ConfigError, match="merge it into its base model"):
        check(llama(), adapter)


def test_code_of_the_checkpoints_own_is_named(check: Callable[..., tuple[Codec, Any]]) -> None:
    def own_code(folder: Path) -> None:
        (folder / "mine.py").write_text(
            "from transformers import LlamaConfig, LlamaForCausalLM\n"
            "class MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
            "class MineForCausalLM(LlamaForCausalLM):\n    config_class = MineConfig\n"
        )
        classes = {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.MineForCausalLM"}
        changed_config(auto_map=classes, architectures=["MineForCausalLM"], model_type="mine")(folder)

    with pytest.raises(ConfigError, match=r"MineForCausalLM, code of the checkpoint's own.*trust_remote_code"):
        check(llama(), own_code, trust_remote_code=True)


@pytest.mark.parametrize("model", [lambda: gpt2(29), lambda: llama(max_position_embeddings=29)])
def test_more_tokens_than_positions_are_refused(
    check: Callable[..., tuple[Codec, Any]], model: Callable[[], Any]
) -> None:
    """The tiny params ask for 24 + 6."""
    with pytest.raises(ConfigError) as caught:
        check(model())
    assert "max_prompt_tokens" in caught.value.where and "max_response_tokens" in caught.value.where
    assert "29" in caught.value.expected and "24 + 6 = 30" in caught.value.found


def added(**tokens: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens(tokens)
        tokenizer.save_pretrained(folder)

    return change


def test_a_pad_token_without_an_embedding_is_not_used(check: Callable[..., tuple[Codec, Any]]) -> None:
    codec, policy = check(llama(vocab_size=281), lambda folder: added(pad_token="[PAD]")(folder))
    rows = policy.get_input_embeddings().weight.shape[0]
    assert len(codec.tokenizer) > rows and codec.pad_id == codec.eos_id < rows
    assert max(codec.encode_prompts(["my [PAD] printer"])[0]) < rows


def test_other_tokens_without_embeddings_are_named(check: Callable[..., tuple[Codec, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"<\|user\|>"):
        check(llama(vocab_size=281), added(additional_special_tokens=["<|user|>"]))


def test_the_generation_configs_stop_tokens_are_kept(check: Callable[..., tuple[Codec, Any]]) -> None:
    def several(folder: Path) -> None:
        (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7, 9000]}')

    codec, _ = check(llama(), several)
    assert codec.stop_ids == (2, 7)
