"""What the deployments beside the pipeline do: more cycles, a policy measured, methods compared, a GPU for one."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML
from test_comparison import content, matrix  # noqa: F401  a fixture
from test_shown import artifacts_of, client, run_of
from tiny_project import Tiny

from components.errors import ConfigError, EnvironmentFault
from components.interface.policies import policy_folder
from flows.outcome import PipelineFailure
from flows.rlhf import IDLE
from flows.workspace import RUNS

# A cycle: where it starts from, and what it has seen so far.
CYCLE = """
import json, os, sys
from pathlib import Path

out, start = Path("artifacts/alignment", sys.argv[1]), Path(sys.argv[2])
Path(os.environ["PROXIMAL_STATUS_FILE"]).write_text("0")
before = (start / "state").read_text() if (start / "state").exists() else ""
out.mkdir(parents=True)
(out / "state").write_text(before + sys.argv[1])
with open(os.environ["TINY_LOG"], "a") as log:
    log.write(json.dumps({"stage": (out / "state").read_text(), "event": "begin"}) + "\\n")
"""
# Stands for `proximal evaluate`: the folder is its own package `flows`, as a clone's is.
CLI = """
import json, sys
from pathlib import Path

arguments = sys.argv[1:]
assert arguments[0] == "evaluate" and arguments[3] == "--", arguments
for stage in ("sft", "reward_model", "judge"):
    assert Path(f"{stage}.out").exists(), stage
if "absent" in arguments[4]:
    sys.exit("error: this is no policy")
Path(arguments[2]).mkdir()
Path(arguments[2], "metrics.json").write_text(json.dumps(%r | {"measured": arguments[4]}))
"""


@pytest.fixture
def cycles(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A tiny project with the cycles of params.yaml, which has three."""
    (tiny.folder / "cycle.py").write_text(CYCLE)
    (tiny.folder / "artifacts" / "sft").mkdir(parents=True)
    (tiny.folder / "artifacts" / "sft" / "policy").write_text("sft")
    alignment = {
        "foreach": "${cycles}",
        "do": {
            "cmd": "exec python cycle.py ${key} ${item.start}",
            "deps": ["${item.start}"],
            "params": ["cycles.${key}"],
            "outs": ["artifacts/alignment/${key}"],
        },
    }
    YAML().dump({"stages": {"alignment": alignment}}, tiny.folder / "dvc.yaml")
    monkeypatch.setenv("TINY_LOG", str(tiny.folder / "log.jsonl"))
    tiny.commit()
    return tiny


def test_a_run_goes_on_from_the_last_cycle_for_more(cycles: Tiny, run_flow: Callable[..., Any]) -> None:
    state = run_flow(more_cycles=2)
    assert state.result().stages == {f"alignment@{k}": "ran" for k in range(1, 6)}
    assert cycles.began() == ["1", "12", "123", "1234", "12345"]
    state = run_flow(more_cycles=3, revision="HEAD")
    assert state.result().stages == {**{f"alignment@{k}": "restored" for k in range(1, 6)}, "alignment@6": "ran"}
    assert cycles.began()[5:] == ["123456"]
    again = run_flow(more_cycles=3)
    assert again.name == IDLE and len(cycles.began()) == 6
    assert (cycles.folder / RUNS).exists() and not list((cycles.folder / RUNS).iterdir())
    with client() as api:
        assert api.read_flow_run(again.state_details.flow_run_id).name.endswith(" more_cycles=3")
    fault = run_flow(more_cycles=-1).result(raise_on_failure=False)
    assert isinstance(fault, ConfigError) and fault.where == "more_cycles"


def test_a_policy_is_measured_in_a_clone_and_shown(tiny: Tiny, prefect_api: str) -> None:
    from flows.evaluate import evaluate

    tiny.stages(sft={"needs": ["data/rows"]}, reward_model={"needs": ["sft"]}, judge={"needs": ["sft"]}, late={})
    package = tiny.folder / "flows"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(CLI % content(1)["evaluation"])
    full = tiny.commit()
    for policy, measured in (("policy@champion", "policy@champion"), ("mine", str(tiny.folder / "mine"))):
        state = evaluate(tiny.folder, policy, revision="HEAD", return_state=True)
        assert state.result()["measured"] == measured
        shown = artifacts_of(state.state_details.flow_run_id)["evaluation"]
        assert shown.description == f"{policy} against the SFT policy" and f"| SFT | {policy} |" in shown.data
        assert "0.500 [0.400, 0.600]" in shown.data
        run = run_of(state)
        name, commit = run.name.rsplit(" ", 1)
        assert name == f"{policy} seed 1" and full.startswith(commit) and {policy, "seed 1"} <= set(run.tags)
        assert artifacts_of(state.state_details.flow_run_id)["stages"].data == 100.0
    assert not (tiny.folder / "sft.out").exists() and not list((tiny.folder / RUNS).iterdir())
    failure = evaluate(tiny.folder, "absent@champion", revision="HEAD", return_state=True).result(
        raise_on_failure=False
    )
    assert isinstance(failure, PipelineFailure) and "this is no policy" in str(failure)


def test_methods_are_compared_in_a_clone_and_shown(matrix: Tiny, prefect_api: str) -> None:  # noqa: F811
    from flows.compare import compare

    commit = matrix.commit()
    state = compare(matrix.folder, [], [1, 2], revision="HEAD", return_state=True)
    assert set(state.result()) == {(method, seed) for method in ("ppo", "dpo") for seed in (1, 2)}
    shown = artifacts_of(state.state_details.flow_run_id)["comparison"]
    assert shown.description == "ppo, dpo" and "seed 1" in shown.data and "seed 2" in shown.data
    assert re.search(r"\| *\| *SFT *\| *ppo *\| *dpo *\|", shown.data)
    assert not (matrix.folder / "artifacts").exists()
    run = run_of(state)
    name, short = run.name.rsplit(" ", 1)
    assert name == "ppo, dpo seeds 1, 2" and commit.startswith(short)
    assert {"ppo", "dpo", "seed 1", "seed 2"} <= set(run.tags)


def test_mlflows_own_names_of_models_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def find(reference: str) -> None:
        asked.append(reference)
        raise EnvironmentFault("enough")

    monkeypatch.setattr("components.interface.policies.find_version", find)
    for name in ("models:/policy@champion", "models:/policy/3", "policy@3"):
        with pytest.raises(EnvironmentFault), policy_folder(name):
            pass
    assert asked == ["policy@champion", "policy@3", "policy@3"]


def test_a_gpu_trains_one_run_at_a_time(tiny: Tiny, prefect_api: str, run_flow: Callable[..., Any]) -> None:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    from flows.gpus import LIMIT, held

    spans: list[tuple[float, float]] = []

    def train() -> None:
        with held(1):
            began = time.monotonic()
            time.sleep(0.5)
            spans.append((began, time.monotonic()))

    with client() as api:
        api.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
        try:
            trainings = [threading.Thread(target=train) for _ in range(2)]
            for training in trainings:
                training.start()
            for training in trainings:
                training.join()
            (first, second) = sorted(spans)
            assert first[1] <= second[0]

            of_cpu = (tiny.folder / "params.yaml").read_text()
            results = []
            for config in ("gpu", "gpu_eight"):
                of_gpu = re.sub("(accelerate_config: infra/accelerate/)[^. ]*", rf"\g<1>{config}", of_cpu)
                (tiny.folder / "params.yaml").write_text(of_gpu)
                tiny.stages(a={"prints": [f"{config}\n"]})
                results.append(run_flow().result(raise_on_failure=False))
            assert results[0].stages == {"a": "ran"}
            assert isinstance(results[1], EnvironmentFault) and "gcl update gpu --limit 8" in results[1].do
            assert api.read_global_concurrency_limit_by_name(LIMIT).active_slots == 0
        finally:
            api.delete_global_concurrency_limit_by_name(LIMIT)
