"""The workspace of one graph: its params, its data, and the real stages run in it, in this process."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components import launch
from components.artifacts import read_json, write_json, write_jsonl
from components.config import POLICY_GRADIENT_METHODS, Method
from components.errors import ConfigError
from components.place import Place
from components.scoring.scorer import SCORER_FILE
from components.worlds.randomwalks import generator

logger = logging.getLogger("proximal")
Tree = dict[str, Any]

# The key of each method that sets the price of KL, and what the oracle's beta is multiplied with to give it: DPO learns
# label_scale * reward from the labels (components.worlds.randomwalks.generator). A method that is not here has none.
_PRICES: Mapping[str, tuple[str, float]] = {
    "ppo": ("kl_coef", 1.0),
    "grpo": ("kl_coef", 1.0),
    "rloo": ("kl_coef", 1.0),
    "dpo": ("beta", generator.LABEL_SCALE),
}

# Whether it is the true reward that a method is trained on; others know the reward model, which learned from labels.
_SCORED_BY: Mapping[bool, Tree] = {
    True: {"parts": {"trained": {"weight": 0.0}, "gold": {"weight": 1.0}}},
    False: {"parts": {"trained": {"weight": 1.0}, "gold": {"weight": 0.0}}},
}


@dataclass(frozen=True)
class Trial:
    """A method at a price of KL; None where the method knows none, and the preset is used as it is."""

    method: Method
    beta: float | None

    @property
    def name(self) -> str:
        return self.method if self.beta is None else f"{self.method} at beta {self.beta:g}"

    @property
    def changes(self) -> Tree:
        """What it changes in the params."""
        if self.beta is None:
            return {"method": self.method, "reward_model": _SCORED_BY[self.method in POLICY_GRADIENT_METHODS]}
        key, factor = _PRICES[self.method]
        return {
            "method": self.method,
            self.method: {key: factor * self.beta},
            "reward_model": _SCORED_BY[self.method in POLICY_GRADIENT_METHODS],
        }


def trials(methods: tuple[Method, ...], betas: tuple[float, ...]) -> list[Trial]:
    """Every method at every price, or once if it has none."""
    return [Trial(method, beta) for method in methods for beta in (betas if method in _PRICES else (None,))]


@dataclass(frozen=True)
class Size:
    """How large a proof is. Samples are a start's; `changes` are changes to the preset."""

    walks: int
    comparisons: int
    sft_samples: int
    samples: int
    changes: Tree


@contextlib.contextmanager
def workspace(folder: Path, preset: Path, seed: int, size: Size) -> Iterator[Tree]:
    """Make the folder anew, with the graph's params and data in it, and work in it until the end of the block.

    Raises:
        ConfigError: something else lies in the folder.
    """
    if folder.exists() and not (folder / Place().params).exists():
        raise ConfigError(
            "this folder is not the workspace of an earlier proof, and would be deleted",
            where=str(folder),
            expected=f"no such folder, or one with {Place().params}",
            found="a folder without it",
            do="choose another --out",
        )
    shutil.rmtree(folder, ignore_errors=True)
    params = _merged(YAML(typ="safe").load(preset), {"data": {"rubric_options": {"graph_seed": seed}}, **size.changes})
    config = Path(params["compute"]["accelerate_config"])
    (folder / config).parent.mkdir(parents=True)
    shutil.copyfile(config, folder / config)
    for name, rows in generator.generate(seed, size.walks, size.comparisons).items():
        write_jsonl(folder / Place().data / name, rows)
    with contextlib.chdir(folder):
        yield params


def prepare(params: Tree) -> None:
    """Run what all methods start from."""
    _write(params)
    for stage in ("data_validation", "sft", "reward_model", "judge"):
        logger.info("%s ...", stage)
        _run(stage)


def align(params: Tree, trial: Trial) -> Path:
    """Run all cycles of a method; returns the folder of the last one's policy."""
    changed = _merged(params, trial.changes)
    _write(changed)
    scorer = Place().reward_model / "model" / SCORER_FILE
    parts = changed["reward_model"]["parts"]
    if (
        read_json(scorer)["parts"] != parts
    ):  # the last trial's method is scored otherwise; what is trained stays the same
        write_json(scorer, read_json(scorer) | {"parts": parts})
    for cycle in changed["cycles"]:
        _run("alignment", "--cycle", str(cycle))
    kept: Path = Path("artifacts") / trial.name.replace(" ", "_")
    Place().alignment.rename(kept)  # the next trial has cycles of the same numbers
    return kept / str(cycle) / "policy"


def _run(*arguments: str) -> None:
    """A stage by its own command, in this process, which has made the slow imports once for all.

    Raises:
        SystemExit: the stage failed, and has said why.
    """
    try:
        launch.main(arguments, standalone_mode=False)
    except SystemExit as end:
        if end.code:
            raise


def _write(params: Tree) -> None:
    YAML(typ="safe").dump(params, Place().params)


def _merged(base: Tree, changes: Tree) -> Tree:
    """A copy with changes, section by section."""
    return base | {
        key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in changes.items()
    }
