"""Each training stage reads no param that dvc.yaml does not declare for it: else a change would run nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from components.config import METHODS, Params, Shared, load_params
from components.place import Place
from components.stages import perform

ROOT = Path(__file__).resolve().parents[2]


class Reading:
    """A section of the params that notes the dotted key of every value read from it.

    Whole sections turned into plain values (for lineage tags and the names of work folders) are not noted.
    """

    def __init__(self, section: BaseModel, name: str, seen: set[str]) -> None:
        self._section, self._name, self._seen = section, name, seen

    def __getattr__(self, key: str) -> Any:
        if key == "shared":
            return Shared(self.seed, self.data, self.language_model, self.measurement, self.generation)
        value = getattr(self._section, key)
        if isinstance(value, BaseModel):
            section = self._section.method if key == "alignment" else key  # the chosen method's, under its name
            return Reading(value, f"{self._name}{section}.", self._seen)
        if key not in type(self._section).model_fields:
            return value
        self._seen.add(self._name + key)
        return value


def declared(stage: str, method: str) -> Iterator[str]:
    description = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    for dotted in description.get("do", description)["params"]:
        yield dotted.replace("${key}", "1").replace("${method}", method)


@pytest.mark.parametrize("stage", ["sft", "reward_model", "judge", *METHODS])
def test_a_stage_reads_what_it_declares(world: Path, change_params: Callable[..., Params], stage: str) -> None:
    seen: set[str] = set()
    is_method = stage in METHODS
    read = change_params(method=stage) if is_method else load_params(Place().params)
    params: Params = Reading(read, "", seen)  # type: ignore[assignment]
    if is_method:
        perform("alignment", params, Place(), 1)
    else:
        perform(stage, params, Place())
    assert "seed" in seen and any(key.startswith(f"{stage}.") for key in seen)  # the notes are taken
    # Of the cycles, dvc.yaml declares each stage's own.
    allowed = [*declared("alignment" if is_method else stage, read.method), "cycles"]
    undeclared = {key for key in seen if not any(key == name or key.startswith(f"{name}.") for name in allowed)}
    assert undeclared == set()
