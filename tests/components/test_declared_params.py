"""Each training stage reads no param that dvc.yaml does not declare for it: else a change would run nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from components import paths
from components.config import Params, load_params

ROOT = Path(__file__).resolve().parents[2]


class Reading:
    """A section of the params that notes the dotted key of every value read from it.

    Whole sections turned into plain values (for lineage tags and the names of work folders) are not noted.
    """

    def __init__(self, section: BaseModel, name: str, seen: set[str]) -> None:
        self._section, self._name, self._seen = section, name, seen

    def __getattr__(self, key: str) -> Any:
        value = getattr(self._section, key)
        if key not in type(self._section).model_fields:
            return value
        if isinstance(value, BaseModel):
            return Reading(value, f"{self._name}{key}.", self._seen)
        self._seen.add(self._name + key)
        return value


def declared(stage: str) -> Iterator[str]:
    description = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    for dotted in description.get("do", description)["params"]:
        yield dotted.replace("${key}", "1")


@pytest.mark.parametrize("stage", ["sft", "reward_model", "judge", "ppo"])
def test_a_stage_reads_what_it_declares(world: Path, stage: str) -> None:
    from components.ppo.run import run as ppo
    from components.reward_model.run import run as reward_model
    from components.sft.run import run as sft

    seen: set[str] = set()
    params: Params = Reading(load_params(paths.PARAMS), "", seen)  # type: ignore[assignment]
    if stage == "sft":
        sft(params)
    elif stage == "ppo":
        ppo(params, 1)
    else:
        reward_model(params, stage)
    assert {f"{stage}.microbatch_size", "seed"} <= seen  # the notes are taken
    allowed = [*declared(stage), "ppo_cycles"]  # of the cycles, dvc.yaml declares each stage's own
    undeclared = {key for key in seen if not any(key == name or key.startswith(f"{name}.") for name in allowed)}
    assert undeclared == set()
