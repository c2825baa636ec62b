"""dvc.yaml against the code: params, outputs and names of a stage are the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dvc_stages import PARAMS, ROOT, STAGES, load, options_of, package

from components.config import METHODS

# Params sections that no stage is named after.
SHARED_SECTIONS = {
    "seed": "one number for all",
    "compute": "processes and threads of all stages",
    "data": "what the data says beyond its text",
    "language_model": "the model that all stages share",
    "generation": "what samples the rollouts of the stage alignment",
    "measurement": "how a policy is measured, in three stages",
    "method": "which method the stage alignment uses",
    "cycles": "the cycles of the stage alignment",
    "policy_gradient": "what several methods of the stage alignment share",
    **dict.fromkeys(METHODS, "a method of the stage alignment"),
    "orchestration": "how a run is operated, which no stage depends on",
    "promotion": "a task of the flow and not a DVC stage: the registry is outside of DVC's sight",
}


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
    assert STAGES[stage]["cmd"] == f"exec python -m components.launch {stage}"


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
def test_outputs_lie_in_the_stages_own_folder_and_only_figures_are_pushed(stage: str) -> None:
    folder = f"artifacts/{stage}/" + ("${key}/" if stage == "alignment" else "")
    drawn = {source for plot in load("dvc.yaml")["plots"] for entry in plot.values() for source in entry["y"]}
    outs = [(kind, *options_of(out)) for kind in ("outs", "metrics", "plots") for out in STAGES[stage].get(kind, [])]
    assert outs
    for kind, path, options in outs:
        assert path.startswith(folder)
        # What `dvc metrics` and `dvc plots` show must be in every clone; the rest is large, and made again.
        assert options.get("push", True) is (kind != "outs" or path in drawn)
        assert options.get("cache", True)  # or the run cache cannot be shared
        assert not options.get("persist", False)  # it would turn the run cache off


def test_the_plots_of_the_report_are_all_declared() -> None:
    from components.evaluation.run import FIGURES

    outs = {options_of(out)[0] for out in STAGES["evaluation"]["outs"]}
    assert {Path(out).stem for out in outs if out.endswith(".png")} == set(FIGURES)
    assert {Path(out).suffix for out in outs if "/plots/" in out} == {".png", ".json"}
    assert "artifacts/evaluation/plots" not in outs
