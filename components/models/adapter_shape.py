"""What an adapter is like, as params say it and as peft stores it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from components.artifacts import reading, write_json
from components.config.models import Adapter
from components.errors import ConfigError
from components.models.adapter_origin import CONFIG_FILE


class AdapterShape(NamedTuple):
    """Kind, rank and alpha as params name them; `targets` are ends of the names of the layers that are adapted."""

    kind: Literal["lora", "rslora", "dora"]
    rank: int
    alpha: float
    targets: tuple[str, ...]

    @classmethod
    def of(cls, adapter: Adapter, model: Any) -> AdapterShape:
        """What params say, for this causal language model.

        Raises:
            ConfigError: a name is of no linear layer below the model's head.
        """
        head = model.get_output_embeddings()
        names = [name for name, module in model.named_modules() if _is_linear(module) and module is not head]
        targets = adapter.target_modules
        if targets == "all-linear":
            targets = sorted({name.rpartition(".")[2] for name in names})
        for target in targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                raise ConfigError(
                    "an adapter has no layer to adapt",
                    where="language_model.adapter.target_modules",
                    expected=f"all-linear, or some of {', '.join(sorted({name.rpartition('.')[2] for name in names}))}",
                    found=target,
                    do="correct the name; the head that gives the logits, and embeddings, cannot be adapted",
                )
        return cls(adapter.kind, adapter.rank, float(adapter.alpha), tuple(sorted(targets)))

    def config(self, model: Any, **options: Any) -> Any:
        """peft's config of it."""
        from peft import LoraConfig

        targeted = [module for name, module in model.named_modules() if name.endswith(self.targets)]
        return LoraConfig(
            r=self.rank,
            # peft says an int, and takes any number
            lora_alpha=int(self.alpha) if self.alpha.is_integer() else self.alpha,  # type: ignore[arg-type]
            target_modules=list(self.targets),
            use_rslora=self.kind == "rslora",
            use_dora=self.kind == "dora",
            # GPT-2's layers keep their weights the other way round
            fan_in_fan_out=any(type(getattr(each, "base_layer", each)).__name__ == "Conv1D" for each in targeted),
            **options,
        )

    def save(self, folder: Path, model: Any, checkpoint: str, task: Literal["CAUSAL_LM", "SEQ_CLS"]) -> None:
        """Write adapter_config.json as peft reads it, with the same bytes every time."""
        kept = ["score"] if task == "SEQ_CLS" else None
        options = {"base_model_name_or_path": checkpoint, "inference_mode": True, "modules_to_save": kept}
        config = self.config(model, task_type=task, **options)
        content = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
        write_json(folder / CONFIG_FILE, content)

    @classmethod
    def load(cls, folder: Path) -> AdapterShape:
        """What `save` wrote.

        Raises:
            ArtifactError: absent, corrupt, or of another kind of adapter.
        """
        with reading("adapter", folder / CONFIG_FILE, "a LoRA, rsLoRA or DoRA as this program stores it"):
            content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            if content["peft_type"] != "LORA" or not isinstance(content["target_modules"], list):
                raise ValueError(f"peft_type {content['peft_type']}, target_modules {content['target_modules']}")
            kind: Literal["lora", "rslora", "dora"] = (
                "dora" if content["use_dora"] else "rslora" if content["use_rslora"] else "lora"
            )
            return cls(kind, int(content["r"]), float(content["lora_alpha"]), tuple(sorted(content["target_modules"])))


def _is_linear(module: nn.Module) -> bool:
    """Whether this is a linear layer, or one that has adapters already."""
    inner = getattr(module, "base_layer", module)
    return isinstance(inner, torch.nn.Linear) or type(inner).__name__ == "Conv1D"
