"""dvc.yaml against the code: what a stage declares is what it imports and reads, under one name everywhere."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from components.config import METHODS

ROOT = Path(__file__).resolve().parents[1]

# Modules a stage may import without declaring them: none of them can change a number that a stage writes.
NUMBERLESS = {
    "components": "the package itself, a docstring",
    "components.artifacts": "writes and reads files, whatever is in them",
    "components.config": "gives the params their types; their values are declared one by one",
    "components.digests": "names content for lineage",
    "components.errors": "what is said when a stage fails, and then it writes nothing",
    "components.launch": "starts processes; the threads and processes themselves are params",
    "components.paths": "names of files; another name is another out",
    "components.profile": "measures time, and writes it where no stage reads",
    "components.tracking": "writes to MLflow, which no stage reads",
}
# Stages whose package or params section is another's, and params sections that no stage is named after.
PACKAGE_OF = {"judge": "reward_model"}
SHARED_SECTIONS = {
    "seed": "one number for all",
    "compute": "processes and threads of all stages",
    "data": "what the data says beyond its text",
    "language_model": "the model that all stages share",
    "measurement": "how a policy is measured, in three stages",
    "method": "which method the stage alignment uses",
    "cycles": "the cycles of the stage alignment",
    **dict.fromkeys(METHODS, "a method of the stage alignment"),
    "promotion": "a task of the flow and not a DVC stage: the registry is outside of DVC's sight",
}


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(ROOT / name)
    return content


PARAMS = load("params.yaml")
STAGES = {name: stage.get("do", stage) for name, stage in load("dvc.yaml")["stages"].items()}


def package(stage: str) -> str:
    return f"components.{PACKAGE_OF.get(stage, stage)}"


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("components", cache_dir=None)


def imported(start: str) -> set[str]:
    """All modules that `start` needs, lazily imported ones too, but not what the numberless ones need."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in seen or any(
            module == name or module.startswith(f"{name}.") for name in set(NUMBERLESS) - {"components"}
        ):
            continue
        seen.add(module)
        waiting += graph().find_modules_directly_imported_by(module)
        if "." in module:  # importing a module runs the packages that it is in
            waiting.append(module.rpartition(".")[0])
    return seen - {"components"}


def code_deps(stage: str) -> list[Path]:
    return [Path(dep) for dep in STAGES[stage]["deps"] if dep.startswith("components/")]


@pytest.mark.parametrize("stage", STAGES)
def test_the_declared_code_covers_all_that_the_stage_imports(stage: str) -> None:
    modules = imported(f"{package(stage)}.run")
    assert len(modules) > 1
    undeclared = []
    for module in sorted(modules):
        source = Path(importlib.util.find_spec(module).origin).relative_to(ROOT)  # type: ignore[union-attr,arg-type]
        if not any(dep == source or dep in source.parents for dep in code_deps(stage)):
            undeclared.append(module)
    assert undeclared == []


@pytest.mark.parametrize("stage", STAGES)
def test_the_declared_code_is_there_and_is_needed(stage: str) -> None:
    """A dependency that a stage does not import would only make it run in vain."""
    sources = {module.replace(".", "/") for module in imported(f"{package(stage)}.run")}
    for dep in code_deps(stage):
        assert (ROOT / dep).exists()
        name = dep.with_suffix("").as_posix().removesuffix("/__init__")
        assert any(source == name or source.startswith(f"{name}/") for source in sources), dep


def test_the_exempt_modules_exist() -> None:
    assert set(NUMBERLESS) <= graph().modules


@pytest.mark.parametrize("stage", STAGES)
def test_the_declared_params_exist(stage: str) -> None:
    for dotted in STAGES[stage]["params"]:
        value: Any = PARAMS
        for key in dotted.replace("${key}", "1").replace("${method}", PARAMS["method"]).split("."):
            assert key in value, f"{dotted} of {stage}"
            value = value[key]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_name_everywhere(stage: str) -> None:
    assert (ROOT / package(stage).replace(".", "/") / "run.py").exists()
    section = "${method}" if stage == "alignment" else stage
    assert section in STAGES[stage]["params"]
    command = STAGES[stage]["cmd"].split()
    assert command[:4] == ["python", "-m", "components.launch", stage]
    assert command[4:] == (["--cycle", "${key}"] if stage == "alignment" else [])


def test_every_section_is_a_stages_or_has_a_reason() -> None:
    assert set(PARAMS) == set(STAGES) - {"alignment"} | set(SHARED_SECTIONS)
    assert not set(STAGES) & set(SHARED_SECTIONS)


def test_the_launcher_knows_the_same_stages() -> None:
    from components.launch import main

    (stages,) = (parameter.type.choices for parameter in main.params if parameter.name == "stage")  # type: ignore[attr-defined]
    assert set(stages) == set(STAGES) | {"promotion"}


def test_every_section_with_threads_is_a_stage() -> None:
    assert set(PARAMS["compute"]["cpu_threads"]) <= set(STAGES) | {"promotion"}
    for stage, description in STAGES.items():
        if stage in PARAMS["compute"]["cpu_threads"] and "compute" not in description["params"]:
            assert f"compute.cpu_threads.{stage}" in description["params"]


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_lie_in_the_stages_own_folder_and_are_not_pushed(stage: str) -> None:
    folder = f"artifacts/{stage}/" + ("${key}/" if stage == "alignment" else "")
    outs = [out for kind in ("outs", "metrics", "plots") for out in STAGES[stage].get(kind, [])]
    assert outs
    for out in outs:
        ((path, options),) = out.items()
        assert path.startswith(folder)
        assert options["push"] is False  # the remote holds data and no models
        assert options.get("cache", True)  # or the run cache cannot be shared
        assert not options.get("persist", False)  # it would turn the run cache off
