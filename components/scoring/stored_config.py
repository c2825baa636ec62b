"""What a stored scorer says of itself. No torch is needed to look at it."""

from __future__ import annotations

import json
from pathlib import Path

from components.config.scoring import Stored
from components.errors import ConfigError

_CLASSIFIER = "ForSequenceClassification"


def require_classifier(part: Stored, key: str, root: Path = Path()) -> None:
    """Refuse a checkpoint by its folder's config, before anything is loaded; a name on a hub is only known when it is.

    Raises:
        ConfigError: it is no sequence classifier with one output.
    """
    path = (root / part.checkpoint) / "config.json"
    if not (root / part.checkpoint).is_dir():
        return
    try:
        config = json.loads(path.read_text())
        named = config.get("architectures") or ["no class"]
    except (OSError, ValueError, AttributeError) as fault:
        raise unusable(part, key, "a folder with a Hugging Face model", str(fault)) from fault
    outputs = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2)
    require_one_output(part, key, named[0], outputs)


def require_one_output(part: Stored, key: str, named: str, outputs: int) -> None:
    """
    Raises:
        ConfigError: a class of that name with so many outputs gives no score.
    """
    if not named.endswith(_CLASSIFIER):
        raise unusable(part, key, f"a class of transformers named ...{_CLASSIFIER}", named)
    if outputs != 1:
        raise unusable(part, key, "one output: a score", f"{named} with {outputs} outputs")


def unusable(part: Stored, key: str, expected: str, found: str) -> ConfigError:
    """What is wrong with a checkpoint."""
    return ConfigError(
        "a stored scorer cannot be used",
        where=f"{key}.checkpoint: {part.checkpoint}",
        expected=expected,
        found=" ".join(found.split())[:300],
        do="name a reward model with one output, with its tokenizer beside it (safetensors only)",
    )
