"""The flow on a tiny pipeline: order, what is skipped or restored, and what failures look like."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tiny_project import Tiny

from components.errors import ConfigError, DataError
from flows.outcome import PipelineFailure


def diamond(tiny: Tiny, **changed: dict[str, Any]) -> None:
    """data -> a -> (b, c) -> d"""
    stages: dict[str, dict[str, Any]] = {
        "a": {"needs": ["data/rows"]},
        "b": {"needs": ["a"], "seconds": 2},
        "c": {"needs": ["a"], "seconds": 2},
        "d": {"needs": ["b", "c"]},
    }
    for name, keys in changed.items():
        stages[name] |= keys
    tiny.stages(**stages)


def test_stages_run_in_graph_order_side_by_side_where_they_can_and_once(
    tiny: Tiny, run_flow: Callable[..., Any]
) -> None:
    diamond(tiny)
    state = run_flow()
    assert (state.type.value, state.name) == ("COMPLETED", "Completed")
    assert state.result().stages == {"data.dvc": "unchanged", **dict.fromkeys("abcd", "ran")}
    times = {(entry["stage"], entry["event"]): entry["time"] for entry in tiny.log()}
    assert times["a", "end"] <= min(times["b", "begin"], times["c", "begin"])
    assert max(times["b", "begin"], times["c", "begin"]) < min(times["b", "end"], times["c", "end"])
    assert max(times["b", "end"], times["c", "end"]) <= times["d", "begin"]
    parents = {entry["parent_run"] for entry in tiny.log()}
    assert len(parents) == 1 and None not in parents

    began = tiny.began()
    again = run_flow()
    assert again.result().stages == dict.fromkeys(["data.dvc", *"abcd"], "unchanged")
    assert (again.type.value, again.name) == ("COMPLETED", "Nothing to do")
    assert "policy has no champion yet" in again.message
    assert tiny.began() == began


def test_stages_that_share_gpus_wait_for_each_other(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    params = tiny.folder / "params.yaml"
    params.write_text(
        re.sub("accelerate_config: [^ \n]*", "accelerate_config: infra/accelerate/gpu.yaml", params.read_text())
    )
    diamond(tiny, b={"seconds": 0.3}, c={"seconds": 0.3})
    assert run_flow().result().stages == {"data.dvc": "unchanged", **dict.fromkeys("abcd", "ran")}
    events = [(entry["stage"], entry["event"]) for entry in sorted(tiny.log(), key=lambda entry: entry["time"])]
    assert [event for _, event in events] == ["begin", "end"] * 4
    assert [stage for stage, event in events if event == "end"] in (["a", "b", "c", "d"], ["a", "c", "b", "d"])


def test_only_what_a_change_reaches_runs_again(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    diamond(tiny, a={"writes": "the same"}, b={"seconds": 0}, c={"seconds": 0})
    run_flow()
    before = len(tiny.began())
    diamond(tiny, a={"writes": "the same"}, b={"seconds": 0, "writes": "new"}, c={"seconds": 0})
    stages = run_flow().result().stages
    assert stages == {"data.dvc": "unchanged", "a": "unchanged", "b": "ran", "c": "unchanged", "d": "ran"}
    assert tiny.began()[before:] == ["b", "d"]

    # New data: `a` must run; what it writes is the same, which DVC finds out for b and c when a has ended.
    (tiny.folder / "data" / "rows").write_text("1\n2\n")
    stages = run_flow().result().stages
    assert stages == {"data.dvc": "pinned", "a": "ran", "b": "confirmed", "c": "confirmed", "d": "confirmed"}

    (tiny.folder / "d.out").unlink()  # DVC's cache has it
    assert run_flow().result().stages["d"] == "restored"


def cached_copy(tiny: Tiny, stage: str) -> Path:
    lock = YAML(typ="safe").load(tiny.folder / "dvc.lock")
    md5 = lock["stages"][stage]["outs"][0]["md5"]
    return tiny.folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def test_a_damaged_file_of_dvcs_cache_is_not_restored_but_named(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    tiny.stages(a={"needs": ["data/rows"]}, b={"needs": ["a"]})
    run_flow()
    copy, output = cached_copy(tiny, "a"), tiny.folder / "a.out"
    copy.chmod(0o644)
    whole = copy.read_bytes()
    copy.write_bytes(b"X" + whole[1:])
    copy.chmod(0o444)
    output.unlink()
    for _ in range(2):  # the second run finds no damaged file in place that it would call unchanged
        failure = run_flow().result(raise_on_failure=False)
        assert isinstance(failure, PipelineFailure) and failure.status == 2
        assert "a.out of stage a" in str(failure) and copy.parent.name + copy.name in str(failure)
        assert not output.exists() and tiny.began() == ["a", "b"]
    advice = re.search("`(rm -rf [^`]*)`", str(failure))
    assert advice is not None and str(copy) in advice[1]
    subprocess.run(advice[1].split(), cwd=tiny.folder, check=True)
    assert run_flow().result().stages == {"data.dvc": "unchanged", "a": "ran", "b": "confirmed"}
    assert output.read_bytes() == whole


def test_a_fault_of_the_user_is_told_in_one_message_and_stops_what_needs_the_stage(
    tiny: Tiny, proximal: Callable[..., subprocess.Popen[str]]
) -> None:
    message = "error: a loss is not finite\n  where:      step 3\n  found:      nan\n"
    diamond(tiny, b={"status": 2, "prints": ["begins\n", message], "seconds": 0})
    process = proximal("run", "--no-promotion")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output.endswith("error: stage b: a loss is not finite\n  where:      step 3\n  found:      nan\n")
    assert output.count("a loss is not finite") == 1
    assert "Traceback" not in output
    assert "b                begins" in output
    assert tiny.began().count("b") == 1 and "c" in tiny.began() and "d" not in tiny.began()


def test_a_fault_of_the_stage_names_its_exception(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\nKeyError: kl\n'
    tiny.stages(a={"prints": [trace], "status": 1})
    state = run_flow()
    failure = state.result(raise_on_failure=False)
    assert isinstance(failure, PipelineFailure) and failure.status == 1
    assert state.message == "stage a: KeyError: kl"


def test_promotion_comes_last_and_its_refusal_to_start_is_a_stages_fault(
    tiny: Tiny, run_flow: Callable[..., Any]
) -> None:
    tiny.stages(a={})
    failure = run_flow(promotion=True).result(raise_on_failure=False)
    assert isinstance(failure, PipelineFailure) and failure.status == 2
    # The real stage, in a project that has no model to promote.
    assert str(failure).startswith("stage promotion: ") and "\n  where:      " in str(failure)
    assert tiny.began() == ["a"]


def test_what_the_user_can_mend_is_refused_and_a_fault_of_ours_has_failed(
    tiny: Tiny, run_flow: Callable[..., Any]
) -> None:
    for status, kind, name in ((2, "CANCELLED", "Refused"), (1, "FAILED", "Failed")):
        tiny.stages(a={"status": status, "prints": ["error: a loss is not finite\n"]})
        state = run_flow()
        assert (state.type.value, state.name) == (kind, name)
        assert "stage a: " in state.message


def test_stages_stand_in_the_lock_in_graph_order_however_they_ended(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    lock = tiny.folder / "dvc.lock"
    orders = []
    for slow, quick in (("b", "c"), ("c", "b")):
        diamond(tiny, **{slow: {"seconds": 2, "writes": slow}, quick: {"seconds": 0, "writes": quick}})
        lock.unlink(missing_ok=True)
        run_flow()
        orders.append(list(YAML(typ="safe").load(lock)["stages"]))
    assert orders == [["a", "b", "c", "d"]] * 2
    before = lock.read_bytes()
    run_flow()
    assert lock.read_bytes() == before


def test_links_in_the_data_are_refused_before_they_are_pinned(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    diamond(tiny)
    (tiny.folder / "private").write_text("a secret\n")
    (tiny.folder / "data" / "more").symlink_to(tiny.folder / "private")
    pin = (tiny.folder / "data.dvc").read_text()
    fault = run_flow().result(raise_on_failure=False)
    assert isinstance(fault, DataError) and str(tiny.folder / "data" / "more") in fault.where
    assert (tiny.folder / "data.dvc").read_text() == pin and tiny.began() == []
    assert not any("a secret" in file.read_text() for file in (tiny.folder / ".dvc/cache").rglob("*") if file.is_file())


def test_faults_before_the_first_stage(tiny: Tiny, run_flow: Callable[..., Any]) -> None:
    tiny.stages(a={"needs": ["a"]})
    cycle = run_flow().result(raise_on_failure=False)
    assert isinstance(cycle, ConfigError) and cycle.where.endswith("dvc.yaml")

    diamond(tiny)
    (tiny.folder / "data" / "rows").rename(tiny.folder / "rows")
    (tiny.folder / "data").rmdir()
    absent = run_flow().result(raise_on_failure=False)
    assert isinstance(absent, DataError)
    assert absent.where == "data (pinned by data.dvc)" and absent.do == "`dvc pull data.dvc`"
    assert tiny.began() == []
