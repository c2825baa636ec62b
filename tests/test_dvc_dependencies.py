"""What a stage declares as its dependencies is what it imports and reads: all of it, and nothing else."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

import grimp
import pytest
from dvc_stages import ALIGNMENT, PARAMS, ROOT, STAGES, load, options_of, package
from ruamel.yaml import YAML

from components.config import METHODS

# Modules a stage may import without declaring them: none of them can change a number that a stage writes.
NUMBERLESS = {
    "components": "the package itself, a docstring",
    "components.artifacts": "writes and reads files, whatever is in them",
    "components.digests": "names content for lineage",
    "components.errors": "what is said when a stage fails, and then it writes nothing",
    "components.launch": "starts processes; threads are params, what else it sets is components.config.accelerate's",
    "components.memory": "what is said when a stage fails for want of it, and then it writes nothing",
    "components.processes": "starts and ends processes",
    "components.supervise": "ends processes",
    "components.place": "names of files; another name is another out",
    "components.tracking": "writes to MLflow, which no stage reads",
}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("components", cache_dir=None)


def imported(start: str, method: str | None = None) -> set[str]:
    """All modules that `start` needs, lazily imported ones too, but not what the numberless ones need.

    Args:
        method: whose room is needed too; None for all of them. It is imported by name, which no graph can see.
    """
    seen: set[str] = set()
    waiting = [start]
    if start == "components.alignment.run":
        waiting += [f"components.alignment.{name}.learner" for name in METHODS if method in (None, name)]
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
    """Of the stage alignment, for every method."""
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith("components/")]
    return [Path(dep.replace("${method}", method)) for dep in deps for method in (METHODS if "$" in dep else [""])]


def computes(stage: str) -> bool:
    return bool({"compute", "compute.accelerate_config"} & set(STAGES[stage]["params"]))


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_computes_with_is_seen_by_its_content(stage: str) -> None:
    """The Accelerate config: its path alone would leave an edited file unseen."""
    assert ("${compute.accelerate_config}" in STAGES[stage]["deps"]) == computes(stage)
    assert computes(stage) == ("components.models.loading" in imported(f"{package(stage)}.run"))


def test_the_checkpoints_files_are_seen_by_their_content() -> None:
    """By every stage that loads a model, as with adapters each reads the base; by the first for its tokenizer."""
    reading = {"data_validation"} | {stage for stage in STAGES if computes(stage)}
    assert {stage for stage in STAGES if "${language_model.checkpoint_files}" in STAGES[stage]["deps"]} == reading
    assert (ROOT / PARAMS["language_model"]["checkpoint_files"]).exists()


def test_the_rubrics_source_is_seen_by_its_content() -> None:
    measured = {stage for stage in STAGES if "components.measuring.rubric" in imported(f"{package(stage)}.run")}
    assert {stage for stage in STAGES if "${data.rubric_files}" in STAGES[stage]["deps"]} == measured
    assert (ROOT / PARAMS["data"]["rubric_files"]).exists()


def test_dvc_depends_on_the_folder_and_the_config_that_params_name(tmp_path: Path) -> None:
    """As DVC itself resolves the templates."""
    from dvc.repo import Repo

    params = load("params.yaml")
    params["language_model"] |= {"checkpoint": "base", "checkpoint_files": "base"}
    params["compute"]["accelerate_config"] = "mine.yaml"
    params["data"]["rubric_files"] = "my_rubrics"
    params["reward_model"]["files"], params["judge"]["files"] = "my_rewards", "my_judge"
    YAML(typ="safe").dump(params, tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    with Repo.init(str(tmp_path), no_scm=True) as project:
        deps = {stage.name: {dep.def_path for dep in stage.deps} for stage in project.index.stages}
    models = {"sft", "reward_model", "judge", "evaluation", *ALIGNMENT}
    assert {name for name in deps if "base" in deps[name]} == {"data_validation"} | models
    assert "mine.yaml" in deps["sft"]
    measured = {"evaluation", *ALIGNMENT}
    assert {name for name in deps if "my_rubrics" in deps[name]} == measured | {"reward_model", "judge"}
    assert {name for name in deps if "my_rewards" in deps[name]} == measured | {"reward_model"}
    assert {name for name in deps if "my_judge" in deps[name]} == measured | {"judge"}
    assert all("mine.yaml" in deps[name] for name in ("reward_model", "judge", "alignment@1", "evaluation"))


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
    sources |= {"components/config/accelerate"} if computes(stage) else set()  # what launch sets for it
    for dep in code_deps(stage):
        assert (ROOT / dep).exists()
        name = dep.with_suffix("").as_posix().removesuffix("/__init__")
        assert any(source == name or source.startswith(f"{name}/") for source in sources), dep


@pytest.mark.parametrize("method", METHODS)
def test_a_cycle_depends_on_its_methods_room_and_on_no_other(method: str) -> None:
    """What the methods of the policy gradient share is a dependency of all: DVC has no conditional ones."""
    assert "components/alignment/${method}" in STAGES["alignment"]["deps"]
    rooms = {module.split(".")[2] for module in imported("components.alignment.run", method)
             if module.startswith("components.alignment.")}  # fmt: skip
    assert rooms & set(METHODS) == {method}


@pytest.mark.parametrize(
    "stage", [name for stage in STAGES for name in (ALIGNMENT if stage == "alignment" else [stage])]
)
def test_dvc_and_the_table_of_stages_name_the_same_inputs(stage: str) -> None:
    """Each input of components.stages lies in a dependency, and each dependency that a stage makes holds an input."""
    from components.config import load_params
    from components.place import Place
    from components.stages import task_of

    name, _, cycle = stage.partition("@")
    params = load_params(ROOT / "params.yaml")
    start = PARAMS["cycles"][cycle]["start"] if cycle else ""
    deps = [Path(dep.replace("${item.start}", start)) for dep in STAGES[name]["deps"]]
    made = [dep for dep in deps if dep.parts[0] in ("artifacts", "data")]
    task = task_of(name, params, Place(), int(cycle) if cycle else None)
    assert [path for path in task.paths if not any(dep in (path, *path.parents) for dep in made)] == []
    assert [dep for dep in made if not any(dep in (path, *path.parents) for path in task.paths)] == []
    outs = [options_of(out)[0] for kind in ("outs", "metrics", "plots") for out in STAGES[name].get(kind, [])]
    assert task.out is not None
    assert all(task.out in Path(out.replace("${key}", cycle)).parents for out in outs)


def test_the_exempt_modules_exist() -> None:
    assert set(NUMBERLESS) <= graph().modules
