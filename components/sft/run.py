"""Supervised fine-tuning: the demonstrations become policy 0, which is also the frozen reference policy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from components.artifacts import atomic_folder, write_json
from components.config import Compute, Sft, Shared
from components.data.rows import Demonstration, Prompt, read_rows
from components.digests import digest
from components.engines.preflight import require_attention, require_chunks, require_usable, require_usable_config
from components.errors import ConfigError, DataError
from components.measuring.health import warn
from components.models.adapters import new_adapter_policy, parameter_counts
from components.models.chat_check import require_sound_template
from components.models.codecs import checkpoint_codec, scratch_codec
from components.models.cuts import cut_fractions
from components.models.loading import (
    load_checkpoint,
    new_policy,
    save_policy,
    stop_ids,
)
from components.models.text import Codec
from components.passes.forward import response_logprobs
from components.passes.sequences import Packed, Sequences, build_sequences
from components.seeding import derive_seed, generator
from components.self_checks import Checks
from components.sft.look import look
from components.tracking import StageRun
from components.training.accelerator import start_accelerator
from components.training.fit import Examples, fit
from components.training.resumable import Resumable
from components.training.sharding import frame_of, whole
from components.work_folder import ended

logger = logging.getLogger("proximal")


class Inputs(NamedTuple):
    """What SFT reads.

    Args:
        demonstrations: None where nothing is trained and there are none.
        prompts: what the policy is looked at with where no demonstration brings a prompt.
    """

    demonstrations: Path | None
    prompts: Path


def run(
    settings: Sft, shared: Shared, inputs: Inputs, out: Path, tracked: StageRun, *, work: Path, compute: Compute
) -> None:
    """Read the clean demonstrations, train, and write the policy and its metrics to `out`.

    Without an epoch the checkpoint is the reference as it is, and no demonstrations are needed.

    Args:
        work: the folder for checkpoints of the fit.
        compute: whether the work of another number of processes goes on.

    Raises:
        DataError: there is nothing to train on.
    """
    rows = [] if inputs.demonstrations is None else read_rows(inputs.demonstrations, Demonstration)
    if not rows and settings.epochs:
        raise DataError(
            "there are no demonstrations to train on",
            where=str(inputs.demonstrations),
            expected="a row or more",
            found="none",
            do="bring demonstrations, or set sft.epochs: 0, with which the checkpoint is the reference as it is",
        )
    accelerator = start_accelerator()
    checks = Checks(tracked.check, speaks=accelerator.is_main_process)
    codec, policy = _start(shared, rows, accelerator.device, checks)
    base_model = _base_model(shared.language_model.checkpoint, policy)
    brought: Sequence[Prompt | Demonstration] = rows or read_rows(inputs.prompts, Prompt)
    asked = {row.prompt: row.asked for row in brought}
    if inputs.demonstrations is not None:
        tracked.dataset("demonstrations", inputs.demonstrations)
    if settings.epochs:
        values = {"seed": shared.seed, "language_model": shared.language_model.model_dump(mode="json")}
        values["sft"] = settings.model_dump(mode="json")
        resumable = Resumable(accelerator, work, "sft", values, tracked.inputs, compute)
        policy, learned = _train(policy, codec, rows, settings, shared, tracked, resumable)
    else:
        resumable = None
        logger.info("sft.epochs is 0: the checkpoint is the reference as it is")
        learned = {"epochs": 0}
    if accelerator.is_main_process:
        metrics = {
            "demonstrations": len(rows),
            **learned,
            **parameter_counts(policy),
            "vocabulary": len(codec.tokenizer),
        }
        with atomic_folder(out) as folder:
            save_policy(policy, codec, folder / "policy")
            write_json(folder / "metrics.json", metrics)
        ended(work, "sft", [resumable.folder] if resumable else [])
        tracked.metrics({f"sft/{name}": value for name, value in metrics.items()})
        signs = look(policy, codec, list(asked.values()), settings.microbatch_size, shared.seed)
        warn("the SFT policy", signs, len(codec.tokenizer))
        tracked.metrics({"sft/ended": signs.ended, "sft/entropy": signs.entropy})
        tracked.tags({"base_model": base_model})


def _train(
    policy: nn.Module,
    codec: Codec,
    rows: list[Demonstration],
    settings: Sft,
    shared: Shared,
    tracked: StageRun,
    resumable: Resumable,
) -> tuple[nn.Module, dict[str, float]]:
    """Go through the demonstrations; the policy, whole on every process, and what came of it in numbers."""
    accelerator = start_accelerator()
    asked = [row.asked for row in rows]
    responses = codec.encode_responses([row.response for row in rows])
    sequences = build_sequences(codec.encode_prompts(asked), responses, codec.pad_id)
    cut = cut_fractions(codec, "sft", asked, responses)

    def loss_sum(model: nn.Module, part: Sequences | Packed) -> Tensor:
        return -response_logprobs(model, part, temperature=1.0).sum()

    frame = frame_of(accelerator, policy)
    losses, seconds = fit(
        accelerator,
        policy,
        Examples(sequences.rows, weights=sequences.response_mask.sum(dim=1), lengths=sequences.mask.sum(dim=1)),
        loss_sum,
        settings=settings,
        generator=generator(shared.seed, "sft"),
        on_step=lambda step, loss: tracked.metrics({"train/loss": loss}, step=step),
        label="sft",
        resumable=resumable,
    )
    tracked.metrics({"cost/seconds": seconds})
    last_epoch = losses[-(len(losses) // settings.epochs) :]
    return whole(accelerator, policy, frame), {
        "loss": sum(last_epoch) / len(last_epoch),
        "response_tokens": float(sequences.response_mask.sum(dim=1).float().mean()),
        **cut,
    }


def _base_model(checkpoint: str, policy: Any) -> str:
    """Where the weights came from: a folder and the digest of what is in it, as DVC's, or a hub's name and commit."""
    if Path(checkpoint).is_dir():
        return f"{checkpoint} {digest(Path(checkpoint))}"
    commit = getattr(policy.config, "_commit_hash", None)  # transformers notes it of what comes from a hub
    return f"{checkpoint} {commit}" if commit else checkpoint


def _start(shared: Shared, rows: list[Demonstration], device: torch.device, checks: Checks) -> tuple[Codec, Any]:
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
    has_system_turns = any(row.messages is not None and row.messages[0]["role"] == "system" for row in rows)
    if config.checkpoint != "scratch":
        require_usable_config(config)
        policy = load_checkpoint(config)
        require_attention(policy, config, device)
        codec = checkpoint_codec(config, stop_ids(policy))
        require_sound_template(codec, has_system_turns=has_system_turns, checks=checks)
        codec.require_room()
        require_usable(codec, policy, config)
        require_chunks(policy, config)
        _end_turns(policy, codec)
        if config.adapter is not None:
            policy = new_adapter_policy(policy, config, derive_seed(shared.seed, "sft", "adapter"))
        return codec, policy
    codec = scratch_codec(config, rows)
    require_sound_template(codec, has_system_turns=has_system_turns, checks=checks)
    codec.require_room()
    tokenizer = codec.tokenizer
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    policy = new_policy(config, len(tokenizer), ids, derive_seed(shared.seed, "sft", "weights"))
    require_attention(policy, config, device)
    _end_turns(policy, codec)
    return codec, policy


def _end_turns(policy: Any, codec: Codec) -> None:
    """Tell what is stored where a chat's turn ends, for those who generate with it by other means."""
    if codec.format.prompt_template is None:
        policy.generation_config.eos_token_id = list(codec.stop_ids)
