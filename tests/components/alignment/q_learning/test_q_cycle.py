"""Cycles of iterations: interrupted and resumed, cut in two, broken off by a NaN, damaged, and measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from new_optimizers import begin_anew
from safetensors.torch import load_file, save_file

from components.alignment.loop import run_cycle
from components.alignment.method import CurveRow, Cycle, Job, rows_of_iteration
from components.alignment.q_learning import learner as module
from components.artifacts import read_json, write_json
from components.config import Params
from components.data.rows import Comparison, Prompt, read_rows
from components.digests import digest
from components.errors import ArtifactError, TrainingError
from components.measuring.measure import FrozenModels, means, measure
from components.models.guided import GuidedPolicy
from components.models.loading import load_policy
from components.place import Place
from components.training.accelerator import start_accelerator

CPU = torch.device("cpu")


class Interruption(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def cycle(world: Path) -> Callable[..., list[CurveRow]]:
    """Runs a cycle into the folder `work`; `stop_in` interrupts it in that iteration, before its checkpoint."""
    prompts = read_rows(Place().clean / "prompts_train.jsonl", Prompt)
    comparisons = read_rows(Place().clean / "comparisons_reward_model.jsonl", Comparison)

    def run(
        params: Params, work: str, number: int = 1, start: Path = Path("artifacts/sft"), stop_in: int | None = None
    ) -> list[CurveRow]:
        def after(row: CurveRow) -> None:
            if row["iteration"] == stop_in:
                raise Interruption

        job = Cycle(number, start, Path(work), prompts, comparisons, after)
        chosen = params.model_copy(update={"method": "q_learning"})
        run_cycle(
            module.ROOM.start,
            Job(
                start_accelerator(),
                chosen.method,
                chosen.alignment,
                chosen.shared,
                job,
                FrozenModels.load(Place().frozen, CPU),
            ),
        )
        curve: list[CurveRow] = read_json(Path(work, "curve.json"))
        return curve

    return run


@pytest.fixture
def settings(tiny_params: Callable[..., Params]) -> Callable[..., Params]:
    """Tiny params with q_learning chosen, e.g. settings(tau=0.6)."""
    return lambda **changes: tiny_params(method="q_learning", q_learning=changes)


@pytest.mark.parametrize("stop_in", [1, 2, 3])
def test_an_interrupted_cycle_resumes_to_the_bit(cycle: Any, settings: Any, stop_in: int) -> None:
    """Interrupted in the callback, an iteration's update is done and its checkpoint is not: that work is lost."""
    params = settings(learning_rate_warmup_iterations=2)
    expected = cycle(params, "whole")
    with pytest.raises(Interruption):
        cycle(params, "work", stop_in=stop_in)
    if stop_in == 1:
        assert not Path("work").exists()
    else:
        assert read_json(Path("work/state/progress.json")) == {"method": "q_learning", "iteration": stop_in - 1}
    assert cycle(params, "work") == expected
    assert digest(Path("work")) == digest(Path("whole"))
    names = {path.relative_to("whole").as_posix() for path in Path("whole").rglob("*") if path.is_file()}
    state = {"optimizer.safetensors", "state/q_heads.safetensors", "state/progress.json", "curve.json"}
    assert state | {"policy/model.safetensors", "policy/q_heads.safetensors", "policy/guided.json"} <= names


def test_two_cycles_are_one_of_twice_the_length_whose_optimiser_begins_anew_half_way(cycle: Any, settings: Any) -> None:
    """Nothing else is lost between cycles: heads, targets, rewards, and the place in the comparisons go on."""
    short, long = (settings(iterations_per_cycle=count) for count in (2, 4))
    first = cycle(short, "first")
    second = cycle(short, "second", number=2, start=Path("first"))
    with pytest.raises(Interruption):
        cycle(long, "whole", stop_in=3)
    begin_anew(Path("whole/optimizer.safetensors"))
    whole = cycle(long, "whole")
    assert [row | {"cycle": 1} for row in first + second] == whole
    assert digest(Path("second/policy")) == digest(Path("whole/policy"))
    assert digest(Path("second/state")) == digest(Path("whole/state"))


def test_the_same_cycle_twice_gives_the_same_bytes_and_another_seed_others(cycle: Any, tiny_params: Any) -> None:
    curves = [cycle(tiny_params(method="q_learning", seed=seed), work) for seed, work in ((1, "a"), (1, "b"), (2, "c"))]
    assert curves[0] == curves[1] != curves[2]
    assert digest(Path("a")) == digest(Path("b")) != digest(Path("c"))


def test_microbatches_and_batches_change_nothing_but_the_speed(cycle: Any, tiny_params: Any) -> None:
    expected = cycle(tiny_params(q_learning={"microbatch_size": 4}), "whole")
    found = cycle(tiny_params(q_learning={"microbatch_size": 1}, measurement={"batch_size": 3}), "split")
    for row, expected_row in zip(found, expected, strict=True):
        assert row == pytest.approx(expected_row, rel=1e-3, abs=1e-3)
    for file in ("policy/model", "policy/q_heads", "state/q_heads"):
        whole, split = (load_file(Path(work, f"{file}.safetensors")) for work in ("whole", "split"))
        for name, weight in whole.items():
            torch.testing.assert_close(split[name], weight, rtol=0, atol=1e-4)


def test_a_curve_row_measures_the_policy_as_it_decodes(cycle: Any, settings: Any) -> None:
    params = settings(iterations_per_cycle=1, learning_rate=0.01, head_learning_rate=0.03, decode_beta=2.0)
    [row] = cycle(params, "work")
    policy = load_policy(Path("work/policy"))
    prompts = rows_of_iteration(
        read_rows(Place().clean / "prompts_train.jsonl", Prompt), 4, 0, params.seed, "q_learning/progress"
    )
    stream = "q_learning/progress"
    found = means(measure(policy, FrozenModels.load(Place().frozen, CPU), params.shared, prompts, 1, stream))
    names = ("reward", "kl", "entropy", "response_tokens", "ended")
    assert {name: row[name] for name in names} == {name: found[name] for name in names}
    assert row["sampled_tokens"] == 0  # nothing that is trained on
    assert (row["cycle"], row["iteration"], row["steps"]) == (1, 1, 2)
    own = {"loss", "q_loss", "value_loss", "cql_loss", "awac_loss", "q", "value", "accuracy", "gradient_norm"}
    assert set(row) == {"cycle", "iteration", *names, "sampled_tokens", "trained_tokens", "steps", *own}
    policy.decode_beta = 0.0
    unguided = means(measure(policy, FrozenModels.load(Place().frozen, CPU), params.shared, prompts, 1, stream))
    assert abs(unguided["kl"] - row["kl"]) > 1e-3


def test_a_cycle_begins_as_the_sft_policy_whatever_the_beta(cycle: Any, settings: Any) -> None:
    """Heads that start from nothing leave the policy alone; rates this small leave them where they started."""
    still = {"iterations_per_cycle": 1, "learning_rate": 1e-12, "head_learning_rate": 1e-12}
    [row] = cycle(settings(**still, decode_beta=50.0), "work")
    assert row["kl"] == pytest.approx(0.0, abs=1e-4)
    assert row["q"] == pytest.approx(0.0, abs=1e-6) == row["value"]


def test_policy_and_heads_have_learning_rates_of_their_own(cycle: Any, settings: Any) -> None:
    def moved(name: str, **rates: float) -> dict[str, float]:
        cycle(settings(iterations_per_cycle=1, weight_decay=0.0, **rates), name)
        policy = load_policy(Path(name, "policy"))
        assert isinstance(policy, GuidedPolicy)
        sft = load_policy(Place().sft / "policy").state_dict()
        gap = max(float((weight - sft[key]).abs().max()) for key, weight in policy.policy.state_dict().items())
        return {"policy": gap, "heads": float(policy.value_head[2].weight.detach().abs().max())}

    slow_policy = moved("one", learning_rate=1e-9, head_learning_rate=0.01)
    assert slow_policy["policy"] < 1e-7 and 0.005 < slow_policy["heads"] < 0.021  # two steps of Adam
    slow_heads = moved("two", learning_rate=0.01, head_learning_rate=1e-9)
    assert 0.005 < slow_heads["policy"] < 0.021 and slow_heads["heads"] < 1e-7


def test_a_nan_stops_the_cycle_and_the_last_checkpoint_stays_usable(
    cycle: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reward turns into a NaN once the first iteration is done."""
    params = settings()
    expected = cycle(params, "whole")
    update, broken = module.update, []

    def with_a_bad_reward(*arguments: Any) -> Any:
        *before, data, comparisons, section, iteration = arguments
        if iteration == 1:
            data.rewards[comparisons[5]] = torch.nan
            broken.append(data.ids[comparisons[5]])
        return update(*before, data, comparisons, section, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(module, "update", with_a_bad_reward)
        with pytest.raises(TrainingError) as caught:
            cycle(params, "work")
    assert caught.value.where == f"q_learning, iteration 2, comparisons {broken[0]}"
    assert read_json(Path("work/state/progress.json"))["iteration"] == 1
    assert cycle(params, "work") == expected
    assert digest(Path("work")) == digest(Path("whole"))


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def of_another_shape(file: Path) -> None:
    save_file({name: torch.zeros(3) for name in load_file(file)}, file)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state/q_heads.safetensors", cut_short),
        ("state/q_heads.safetensors", of_another_shape),
        ("state/q_heads.safetensors", Path.unlink),
        ("state/progress.json", cut_short),
        ("state/progress.json", lambda file: file.write_text("[]")),
        ("state/progress.json", lambda file: file.write_text('{"method": "q_learning", "iteration": "1"}')),
        ("policy/q_heads.safetensors", cut_short),
        ("policy/model.safetensors", cut_short),
    ],
)
def test_a_damaged_start_is_an_error_that_names_it(
    cycle: Any, settings: Any, name: str, damage: Callable[[Path], None]
) -> None:
    params = settings(iterations_per_cycle=1)
    cycle(params, "first")
    damage(Path("first", name))
    with pytest.raises(ArtifactError) as caught:
        cycle(params, "second", number=2, start=Path("first"))
    assert "first" in caught.value.where
    assert not Path("second").exists()


def test_the_state_of_another_method_is_refused(cycle: Any, settings: Any) -> None:
    params = settings(iterations_per_cycle=1)
    cycle(params, "first")
    for file in ("q_heads.safetensors", "guided.json"):
        Path("first/policy", file).unlink()
    with pytest.raises(ArtifactError, match="no Q heads") as caught:
        cycle(params, "second", number=2, start=Path("first"))
    assert caught.value.where == "first/policy"


def test_a_cycle_does_not_go_on_from_another_method(cycle: Any, settings: Any) -> None:
    params = settings(iterations_per_cycle=1)
    cycle(params, "first")
    progress = Path("first/state/progress.json")
    write_json(progress, read_json(progress) | {"method": "dpo"})
    with pytest.raises(ArtifactError, match="what another method has left") as caught:
        cycle(params, "second", number=2, start=Path("first"))
    assert (caught.value.where, caught.value.found) == (str(progress), "dpo")
    assert not Path("second").exists()
