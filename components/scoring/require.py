"""What is sure to fail in a scorer is refused before anything is paid for. No torch is needed to look."""

from __future__ import annotations

from components.config import Params
from components.config.scoring import Function, Scoring, Stored
from components.data.rows import Prompt, read_rows
from components.errors import ConfigError
from components.measuring.rubric import load_rubric
from components.place import Place
from components.scoring.columns import Asked, column_names, require_columns
from components.scoring.function import asked_of
from components.scoring.stored_config import require_classifier


def require_scorers(params: Params, place: Place) -> None:
    """Refuse parts of the reward model and of the judge, and a rubric, that cannot be used.

    Columns are held against the clean prompts, where validation has written them.

    Raises:
        ConfigError: a function cannot be imported or called, a checkpoint's folder holds no scorer or is not in
            `files`, or a column that is asked for is not there.
    """
    asked: dict[str, Asked] = {}
    if rubric := load_rubric(params.data):
        asked[f"data.rubric: {rubric.name}"] = rubric.asked
    for section in ("reward_model", "judge"):
        settings: Scoring = getattr(params, section)
        for name, part in settings.parts.items():
            key = f"{section}.parts.{name}"
            if isinstance(part, Stored):
                require_classifier(part, key, place.root)
                _require_files(part, key, settings, section, place)
            if isinstance(part, Function):
                asked[f"{key}: {part.function}"] = asked_of(part, key)
    if not any(each.required for each in asked.values()):
        return
    for split in ("train", "validation", "test"):
        path = place.clean / f"prompts_{split}.jsonl"
        if not path.exists():
            continue
        names = column_names(read_rows(path, Prompt))
        for where, each in asked.items():
            require_columns(each, names, where, str(path))


def _require_files(part: Stored, key: str, settings: Scoring, section: str, place: Place) -> None:
    """DVC knows a checkpoint by its folder's content: another folder's would say nothing of it."""
    folder, files = place.root / part.checkpoint, place.root / settings.files
    if folder.is_dir() and files.resolve() not in (folder.resolve(), *folder.resolve().parents):
        raise ConfigError(
            "a change of a stored scorer would not be seen",
            where=f"{section}.files",
            expected=f"{part.checkpoint} ({key}.checkpoint), or a folder that it is in",
            found=settings.files,
            do="name it there",
        )
