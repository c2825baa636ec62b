"""Supervised fine-tuning: the demonstrations become policy 0, which is also the frozen reference policy."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from components.artifacts import atomic_folder, write_json
from components.config import Sft, Shared
from components.data.rows import Demonstration, read_rows
from components.digests import digest
from components.engines.preflight import require_attention, require_chunks, require_usable, require_usable_config
from components.errors import ConfigError
from components.measuring.health import warn
from components.models.adapters import new_adapter_policy, parameter_counts
from components.models.checkpoint_tokenizer import load_checkpoint_tokenizer
from components.models.cuts import cut_fractions
from components.models.loading import (
    load_checkpoint,
    new_policy,
    save_policy,
    stop_ids,
)
from components.models.text import Codec, TextFormat, train_tokenizer
from components.passes.forward import response_logprobs
from components.passes.sequences import Packed, Sequences, build_sequences
from components.seeding import derive_seed, generator
from components.sft.look import look
from components.tracking import StageRun
from components.training.accelerator import frame_of, start_accelerator, whole
from components.training.fit import Examples, fit

logger = logging.getLogger("proximal")


class Inputs(NamedTuple):
    """What SFT reads."""

    demonstrations: Path


def run(settings: Sft, shared: Shared, inputs: Inputs, out: Path, tracked: StageRun) -> None:
    """Read the clean demonstrations, train, and write the policy and its metrics to `out`."""
    rows = read_rows(inputs.demonstrations, Demonstration)
    accelerator = start_accelerator()
    codec, policy = _start(shared, rows, accelerator.device)
    base_model = _base_model(shared.language_model.checkpoint, policy)
    prompts = codec.encode_prompts([row.prompt for row in rows])
    responses = codec.encode_responses([row.response for row in rows])
    sequences = build_sequences(prompts, responses, codec.pad_id)
    cut = cut_fractions(codec, "sft", [row.prompt for row in rows], responses)

    def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
        return -response_logprobs(model, part, temperature=1.0).sum()

    tracked.dataset("demonstrations", inputs.demonstrations)
    frame = frame_of(accelerator, policy)
    losses = fit(
        accelerator,
        policy,
        Examples(sequences.rows, weights=sequences.response_mask.sum(dim=1), lengths=sequences.mask.sum(dim=1)),
        loss_sum,
        settings=settings,
        generator=generator(shared.seed, "sft"),
        on_step=lambda step, loss: tracked.metrics({"train/loss": loss}, step=step),
        label="sft",
    )
    policy = whole(accelerator, policy, frame)
    if accelerator.is_main_process:
        last_epoch = losses[-(len(losses) // settings.epochs) :]
        metrics = {
            "demonstrations": len(rows),
            "loss": sum(last_epoch) / len(last_epoch),
            **parameter_counts(policy),
            "response_tokens": float(sequences.response_mask.sum(dim=1).float().mean()),
            **cut,
            "vocabulary": len(codec.tokenizer),
        }
        with atomic_folder(out) as folder:
            save_policy(policy, codec, folder / "policy")
            write_json(folder / "metrics.json", metrics)
        tracked.metrics({f"sft/{name}": value for name, value in metrics.items()})
        signs = look(policy, codec, [row.prompt for row in rows], settings.microbatch_size, shared.seed)
        warn("the SFT policy", signs, len(codec.tokenizer))
        tracked.metrics({"sft/ended": signs.ended, "sft/entropy": signs.entropy})
        tracked.tags({"base_model": base_model})


def _base_model(checkpoint: str, policy: Any) -> str:
    """Where the weights came from: a folder and the digest of what is in it, as DVC's, or a hub's name and commit."""
    if Path(checkpoint).is_dir():
        return f"{checkpoint} {digest(Path(checkpoint))}"
    commit = getattr(policy.config, "_commit_hash", None)  # transformers notes it of what comes from a hub
    return f"{checkpoint} {commit}" if commit else checkpoint


def _start(shared: Shared, rows: list[Demonstration], device: torch.device) -> tuple[Codec, nn.Module]:
    """The tokenizer and the policy before any training."""
    config = shared.language_model
    if Path(config.checkpoint).is_dir() and Path(config.checkpoint_files) != Path(config.checkpoint):
        raise ConfigError(
            "a change in the checkpoint's folder would not be seen",
            where="language_model.checkpoint_files",
            expected=config.checkpoint,
            found=config.checkpoint_files,
            do="name the folder there too: DVC then runs SFT again when a file in it changes",
        )
    text_format = TextFormat(config.prompt_template, config.max_prompt_tokens, config.max_response_tokens)
    if "\\n" in config.prompt_template:
        logger.warning(
            "language_model.prompt_template holds a backslash and an n, two characters: in params.yaml they are a new "
            "line between double quotes only"
        )
    if config.checkpoint != "scratch":
        require_usable_config(config)
        policy = load_checkpoint(config)
        require_attention(policy, config, device)
        text_format = dataclasses.replace(text_format, stop_ids=stop_ids(policy))
        codec = Codec(load_checkpoint_tokenizer(config), text_format)
        codec.require_room()
        require_usable(codec, policy, config)
        require_chunks(policy, config)
        if config.adapter is not None:
            policy = new_adapter_policy(policy, config, derive_seed(shared.seed, "sft", "adapter"))
        return codec, policy
    texts = [text_format.prompt_template.replace("{prompt}", row.prompt) for row in rows]
    texts += [row.response for row in rows]
    tokenizer = train_tokenizer(texts, config.scratch.vocabulary_size)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    codec = Codec(tokenizer, text_format)
    codec.require_room()
    policy = new_policy(config, len(tokenizer), ids, derive_seed(shared.seed, "sft", "weights"))
    require_attention(policy, config, device)
    return codec, policy
