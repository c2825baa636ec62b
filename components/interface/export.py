"""A policy as a plain Hugging Face folder, which transformers alone loads, or as peft's adapter: `proximal export`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from components.artifacts import atomic_folder
from components.digests import digest
from components.errors import ArtifactError, ConfigError
from components.models.adapter_origin import CONFIG_FILE, WEIGHTS_FILE, Origin, is_adapter
from components.models.adapters import merged
from components.models.guided import is_guided
from components.models.loading import BEST_OF_N, load_codec, load_policy
from components.models.text import Codec
from components.promotion.card import CARD, card_of_folder

_PROBE_TOKENS = 64
# Of the probe's largest logit: what float32 sums in another order differ by. Other weights differ by far more.
_TOLERANCE = 1e-4


class Exported(NamedTuple):
    """What was written.

    Args:
        rounding: the largest difference that writing in another dtype made to a logit of the probe; 0 without one.
        size: bytes of the folder.
    """

    folder: Path
    dtype: str
    stop_ids: tuple[int, ...]
    rounding: float
    size: int

    def sentence(self) -> str:
        """The same for people."""
        rounded = f"; rounding moved the probe's logits by up to {self.rounding:.2g}" if self.rounding else ""
        ends = ", ".join(map(str, self.stop_ids))
        return f"{self.folder}: {self.size / 1e6:.1f} MB in {self.dtype}, a response ends at token {ends}{rounded}"


def export(source: Path, to: Path, dtype: str | None, card: str | None = None) -> Exported:
    """Write the policy of a folder to a new one: weights, tokenizer with its chat template, and what ends a response.

    Args:
        source: as a stage or a registered model holds it.
        dtype: of the weights there; None for the policy's own.
        card: the model card; None for what a folder alone tells.

    Raises:
        ConfigError: `to` is there already.
        ArtifactError: the policy has no plain form, is damaged, or what was written gives other logits.
    """
    from transformers.utils import logging

    require_new(to)
    require_plain(source)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    policy, codec = merged(source) if is_adapter(source) else load_policy(source), load_codec(source)
    probe = _probe(codec, policy)
    kept = dtype or str(next(policy.parameters()).dtype).removeprefix("torch.")
    _hold(policy, torch.float32)
    wanted = _logits(policy, probe)
    if is_adapter(source):
        require_same_logits(load_policy(source), probe, wanted, source)
    _hold(policy, getattr(torch, kept))
    _hold(policy, torch.float32)  # as rounded as they are written
    rounded = _logits(policy, probe)
    _hold(policy, getattr(torch, kept))
    policy.generation_config._from_model_config = False  # or transformers may take the model's one end token instead
    policy.generation_config.eos_token_id = list(codec.stop_ids)
    policy.generation_config.pad_token_id = codec.pad_id
    with atomic_folder(to) as scratch:
        policy.save_pretrained(scratch)
        codec.tokenizer.save_pretrained(scratch)
        _write_card(scratch, source, card)
        require_same_logits(_loaded_by_transformers(scratch), probe, rounded, source)
    return _exported(to, kept, codec, float((rounded - wanted).abs().max()))


def export_adapter(source: Path, to: Path, card: str | None = None) -> Exported:
    """Write the adapter of a policy to a new folder, in peft's form, with the tokenizer and what ends a response.

    Args:
        card: as of `export`.

    Raises:
        ConfigError: `to` is there already.
        ArtifactError: the policy is no adapter, is damaged, or what was written gives other logits on its base.
    """
    require_new(to)
    require_plain(source)
    if not is_adapter(source):
        raise ArtifactError(
            "this policy is no adapter",
            where=str(source),
            expected="a policy of a run with language_model.adapter, as a stage stores it",
            found="whole weights",
            do="leave out --adapter; the registry holds merged models: name artifacts/selection/policy",
        )
    policy, codec = load_policy(source), load_codec(source)
    probe = _probe(codec, policy)
    with atomic_folder(to) as scratch:
        for name in (CONFIG_FILE, WEIGHTS_FILE, "generation_config.json"):
            shutil.copy(source / name, scratch / name)
        codec.tokenizer.save_pretrained(scratch)
        _write_card(scratch, source, card)
        require_same_logits(_loaded_by_peft(source, scratch), probe, _logits(policy, probe), source)
    return _exported(to, "float32", codec, rounding=0.0)


def _write_card(scratch: Path, source: Path, card: str | None) -> None:
    (scratch / CARD).write_text(card or card_of_folder(digest(source)), encoding="utf-8")


def _exported(to: Path, dtype: str, codec: Codec, rounding: float) -> Exported:
    size = sum(path.stat().st_size for path in to.rglob("*") if path.is_file())
    return Exported(to, dtype, codec.stop_ids, rounding, size)


def require_new(to: Path) -> None:
    """Raises: ConfigError: there is something already."""
    if to.exists():
        raise ConfigError(
            "the folder is there already",
            where=f"--to {to}",
            expected="a new folder",
            found="files" if to.is_dir() else "a file",
            do="name another one, or remove it",
        )


def require_plain(source: Path) -> None:
    """Raises: ArtifactError: the policy does more at every response than its weights say."""
    kinds = {
        "chooses the best of n responses by a scorer": (source / BEST_OF_N).exists(),
        "is guided by Q heads at every token": is_guided(source),
    }
    for kind, found in kinds.items():
        if found:
            raise ArtifactError(
                "this policy has no plain form",
                where=str(source),
                expected="a policy that is a language model and nothing else",
                found=f"one that {kind}",
                do="answer with it here (`proximal evaluate`, or MLflow's `predict`), or export a policy of another "
                "method",
            )


def require_same_logits(model: Any, probe: Tensor, wanted: Tensor, source: Path) -> None:
    """Raises: ArtifactError: a model gives other logits for the probe."""
    largest, scale = float((_logits(model, probe) - wanted).abs().max()), float(wanted.abs().max())
    if not largest <= _TOLERANCE * scale:
        raise ArtifactError(
            "what was written is another model",
            where=str(source),
            expected=f"logits that differ by at most {_TOLERANCE * scale:.2g}, loaded by transformers alone",
            found=f"{largest:.3g}",
            do="nothing was kept; the policy's architecture is one that transformers does not store as it computes",
        )


def _hold(policy: Any, dtype: torch.dtype) -> None:
    """Hold the weights in another dtype; rotary frequencies, which no file keeps, stay as exact as they are."""
    for weight in policy.parameters():
        weight.data = weight.data.to(dtype)


def _probe(codec: Codec, policy: Any) -> Tensor:
    """A text and a stretch of the whole vocabulary, after each other, within the model's positions. Shapes: (1, S)."""
    vocabulary = policy.get_output_embeddings().weight.shape[0]
    spread = [round(place * (vocabulary - 1) / _PROBE_TOKENS) for place in range(_PROBE_TOKENS)]
    positions = getattr(policy.config.get_text_config(), "max_position_embeddings", None) or _PROBE_TOKENS
    return torch.tensor([(codec.encode_prompts(["Is this the same model?"])[0] + spread)[: min(positions, 128)]])


@torch.no_grad()
def _logits(model: Any, probe: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=probe, use_cache=False).logits
    return logits.float()


def _loaded_by_transformers(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM  # untyped in transformers
    return auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def _loaded_by_peft(source: Path, folder: Path) -> Any:
    from peft import PeftModel

    base = _loaded_by_transformers(Origin.load(source).folder(source))
    return PeftModel.from_pretrained(base, str(folder)).eval()
