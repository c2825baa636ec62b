"""A suite that is a task of lm-eval: a YAML file of one's own, with data beside it. Nothing is fetched.

Measured is what lm-eval's own metric says of each document, by its number.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from components.config import Shared
from components.config.measuring import LmEvalSuite
from components.errors import ConfigError, DataError
from components.promotion.candidate import on_its_own

_LEAST = 2  # documents; fewer have no interval


def require(name: str, suite: LmEvalSuite, root: Path) -> None:
    """Refuse a task that cannot be run.

    Raises:
        ConfigError: lm-eval is not installed, or the task is not there.
    """
    if find_spec("lm_eval") is None:
        raise ConfigError(
            "a suite is a task of lm-eval, which is not installed",
            where=f"promotion.suites.{name}.source",
            expected="lm-eval",
            do="`pip install -c constraints.txt '.[lm-eval]'`",
        )
    if not (root / suite.task).is_file():
        raise ConfigError(
            "a task of lm-eval is not there",
            where=f"promotion.suites.{name}.task",
            expected="a YAML file of lm-eval, with its data (JSON) beside it",
            found=f"no file {root / suite.task}",
        )


def files_of(suite: LmEvalSuite, root: Path) -> list[Path]:
    """The task, and all that lies beside it: its data, what it includes."""
    beside = (root / suite.task).parent.rglob("*")
    return sorted(path for path in beside if path.is_file() and "__pycache__" not in path.parts)


def measured(name: str, suite: LmEvalSuite, policy: Path, shared: Shared, root: Path) -> dict[str, float]:
    """Document -> what the task's metric says of the policy there.

    Raises:
        ArtifactError: the policy is absent or corrupt.
        ConfigError: the policy is none that lm-eval reads, or the task has no such metric.
        DataError: the task has too few documents.
    """
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from components.models.loading import load_codec, load_policy
    from components.training.accelerator import start_accelerator

    task = _task(name, suite, root)
    with on_its_own(policy) as whole:
        model = load_policy(whole, shared.language_model).to(start_accelerator().device)
        if not hasattr(model, "generation_config"):
            raise ConfigError(
                "lm-eval reads plain models alone",
                where=f"promotion.suites.{name}.source",
                expected="a policy without Q heads, that does not choose among responses",
                found=type(model).__name__,
                do="take the suite away, or give it a checker, which reads answers",
            )
        reads = HFLM(pretrained=model, tokenizer=load_codec(whole).tokenizer, batch_size=suite.batch_size)
        seed = shared.seed
        told = simple_evaluate(
            model=reads,
            tasks=[task],
            log_samples=True,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    (samples,) = told["samples"].values()
    return _of_documents(name, suite, samples)


def _of_documents(name: str, suite: LmEvalSuite, samples: list[dict[str, Any]]) -> dict[str, float]:
    filters = sorted({sample["filter"] for sample in samples})
    rows = [sample for sample in samples if sample["filter"] == filters[0]]
    if missing := [row for row in rows if not isinstance(row.get(suite.metric), int | float)]:
        numbers = [key for key, value in missing[0].items() if isinstance(value, int | float) and key != "doc_id"]
        raise ConfigError(
            "a task of lm-eval has no such metric, a number for each document",
            where=f"promotion.suites.{name}.metric",
            expected=f"one of {', '.join(numbers) or 'none that the task gives'}",
            found=suite.metric,
        )
    if len(rows) < _LEAST:
        raise DataError("a suite has too few prompts for an interval", where=suite.task, expected=f"at least {_LEAST}",
                        found=str(len(rows)))  # fmt: skip
    return {str(row["doc_id"]): float(row[suite.metric]) for row in rows}


def _task(name: str, suite: LmEvalSuite, root: Path) -> dict[str, Any]:
    """The task as lm-eval reads it, its data files from its own folder on."""
    from lm_eval.tasks._yaml_loader import load_yaml  # its public ways in look tasks up by name, among thousands

    folder = (root / suite.task).parent.resolve()
    task: dict[str, Any] = load_yaml(root / suite.task)
    files = task.get("dataset_kwargs", {}).get("data_files")
    if task.get("dataset_path") != "json" or not isinstance(files, str | dict):
        raise ConfigError(
            "a task of lm-eval brings no data of its own",
            where=f"promotion.suites.{name}.task: {suite.task}",
            expected="dataset_path: json, and dataset_kwargs: {data_files: FILE} or {data_files: {SPLIT: FILE}}",
            found=f"dataset_path: {task.get('dataset_path')}",
            do="put the data beside the task: nothing is fetched in a promotion",
        )
    by_split = files if isinstance(files, dict) else {"train": files}
    task["dataset_kwargs"] = {"data_files": {split: str(folder / file) for split, file in by_split.items()}}
    return task
