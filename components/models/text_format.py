"""How text becomes tokens, as it is stored beside a policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts import read_json, reading

FORMAT_FILE = "proximal.json"
_ALWAYS = (
    "prompt_template",
    "max_prompt_tokens",
    "max_response_tokens",
)  # others where they say something


@dataclass(frozen=True)
class TextFormat:
    """How a prompt is dressed, the longest texts in tokens, and what ends a response beside the tokenizer's end token.

    A prompt that is too long loses its beginning, a conversation its oldest turns first; the template around it, and
    what the tokenizer puts before it, stay.

    Args:
        prompt_template: a text around {prompt}; None where the tokenizer's chat template dresses prompts.
        stop_ids: a checkpoint's generation_config may name several.
        chat_template_options: what else the chat template takes, by name.
        system_prompt: of conversations that bring none.
    """

    prompt_template: str | None
    max_prompt_tokens: int
    max_response_tokens: int
    stop_ids: tuple[int, ...] = ()
    chat_template_options: Mapping[str, Any] = field(default_factory=dict)
    system_prompt: str | None = None

    def save(self, folder: Path) -> None:
        content = {name: value for name, value in asdict(self).items() if name in _ALWAYS or value}
        (folder / FORMAT_FILE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> TextFormat:
        path = folder / FORMAT_FILE
        with reading("text format", path, f"{', '.join(_ALWAYS[:-1])} and {_ALWAYS[-1]}"):
            content = dict(read_json(path))
            return cls(**{**content, "stop_ids": tuple(map(int, content.get("stop_ids", ())))})
