"""Cycles of DPO: interrupted and resumed, cut in two, broken off by a NaN, started from damaged files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from new_optimizers import begin_anew
from safetensors.torch import load_file

from components.alignment.dpo.learner import ROOM
from components.alignment.loop import run_cycle
from components.alignment.method import CurveRow, Cycle, Job, rows_of_iteration
from components.artifacts import read_json, write_json
from components.config import Params
from components.data.rows import Comparison, Prompt, read_rows
from components.digests import digest
from components.errors import ArtifactError, TrainingError
from components.measuring.measure import FrozenModels, means, measure
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
        accelerator = start_accelerator()
        chosen = params.model_copy(update={"method": "dpo"})
        run_cycle(
            ROOM.start,
            Job(
                accelerator,
                chosen.method,
                chosen.alignment,
                chosen.shared,
                job,
                FrozenModels.load(Place().frozen, accelerator.device),
            ),
        )
        curve: list[CurveRow] = read_json(Path(work, "curve.json"))
        return curve

    return run


@pytest.mark.parametrize("stop_in", [1, 2, 3])
@pytest.mark.parametrize("count", [4, 14], ids=["one epoch", "several epochs"])
def test_an_interrupted_cycle_resumes_to_the_bit(cycle: Any, tiny_params: Any, count: int, stop_in: int) -> None:
    """Interrupted in the callback, an iteration's steps are done and its checkpoint is not: that work is lost."""
    params = tiny_params(dpo={"comparisons_per_iteration": count, "learning_rate_warmup_iterations": 2})
    expected = cycle(params, "whole")
    with pytest.raises(Interruption):
        cycle(params, "work", stop_in=stop_in)
    if stop_in == 1:
        assert not Path("work").exists()
    else:
        assert read_json(Path("work/state/progress.json")) == {"method": "dpo", "iteration": stop_in - 1}
    assert cycle(params, "work") == expected
    assert digest(Path("work")) == digest(Path("whole"))
    names = {path.relative_to("whole").as_posix() for path in Path("whole").rglob("*") if path.is_file()}
    assert {"optimizer.safetensors", "policy/model.safetensors", "state/progress.json", "curve.json"} <= names


def test_two_cycles_are_one_of_twice_the_length_whose_optimiser_begins_anew_half_way(
    cycle: Any, tiny_params: Any
) -> None:
    """Nothing else is lost between cycles: the place in the comparisons and in the warm-up go on."""
    short, long = (
        tiny_params(
            dpo={"iterations_per_cycle": count, "comparisons_per_iteration": 2, "learning_rate_warmup_iterations": 4}
        )
        for count in (2, 4)
    )
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
    curves = [cycle(tiny_params(seed=seed), work) for seed, work in ((1, "a"), (1, "b"), (2, "c"))]
    assert curves[0] == curves[1] != curves[2]
    assert digest(Path("a")) == digest(Path("b")) != digest(Path("c"))


def test_microbatches_change_nothing_but_the_speed(cycle: Any, tiny_params: Any) -> None:
    """From a policy that is not the reference: of margins of 0, rounding alone would make an accuracy."""
    shape = {"comparisons_per_iteration": 8, "batch_size": 4}
    cycle(tiny_params(dpo=shape), "first")
    start = {"number": 2, "start": Path("first")}
    expected = cycle(tiny_params(dpo=shape | {"microbatch_size": 4}), "whole", **start)
    found = cycle(tiny_params(dpo=shape | {"microbatch_size": 1}, measurement={"batch_size": 3}), "split", **start)
    for row, expected_row in zip(found, expected, strict=True):
        assert row == pytest.approx(expected_row, rel=1e-3, abs=1e-4)
    whole, split = (load_file(Path(work, "policy/model.safetensors")) for work in ("whole", "split"))
    for name, weight in whole.items():
        torch.testing.assert_close(split[name], weight, rtol=0, atol=1e-4)


def test_a_curve_row_tells_of_the_policy_after_the_iteration(cycle: Any, tiny_params: Any) -> None:
    params = tiny_params(dpo={"iterations_per_cycle": 1, "progress_prompts": 7})
    (row,) = cycle(params, "work")
    rows = read_rows(Place().clean / "prompts_train.jsonl", Prompt)
    prompts = rows_of_iteration(rows, 7, 0, params.seed, "dpo/progress")
    policy, frozen = load_policy(Path("work/policy")), FrozenModels.load(Place().frozen, CPU)
    expected = means(measure(policy, frozen, params.shared, prompts, 1, "dpo/progress"))
    assert (row["cycle"], row["iteration"], row["sampled_tokens"], row["steps"]) == (1, 1, 0, 2)
    for name in ("reward", "kl", "entropy", "response_tokens", "ended"):
        assert row[name] == pytest.approx(expected[name], abs=1e-6)
    assert not {"gold", "helpful", "judge"} & set(row)  # training looks at none of them
    assert row["kl"] != 0.0


def test_the_first_step_starts_at_the_reference(cycle: Any, tiny_params: Any) -> None:
    """No margin, and a loss of log 2: the logprobs of policy and reference are those of one set of weights."""
    shape = {"iterations_per_cycle": 1, "comparisons_per_iteration": 4, "batch_size": 4, "microbatch_size": 4}
    params = tiny_params(dpo=shape)
    (row,) = cycle(params, "work")
    # With and without gradients the logprobs are computed on ways of their own: on another CPU they may be 16 last
    # bits apart, and how much those are follows from the nats that the margin subtracts from each other.
    nats = -(row["chosen_logprob"] + row["rejected_logprob"])
    rounding = params.dpo.beta * nats * 16 * torch.finfo(torch.float32).eps
    assert row["loss"] == pytest.approx(0.6931472, abs=rounding)  # reason: 5e-6, as said above
    assert row["margin"] == pytest.approx(0.0, abs=rounding)  # reason: 5e-6, as said above


def test_it_learns_the_comparisons(cycle: Any, tiny_params: Any) -> None:
    settings = {"iterations_per_cycle": 20, "comparisons_per_iteration": 10, "learning_rate": 0.01}
    rows = cycle(tiny_params(dpo=settings | {"label_smoothing": 0.0}), "work")
    assert rows[-1]["accuracy"] == 1.0 and rows[-1]["margin"] > 1.0 and rows[-1]["loss"] < 0.4


def test_a_nan_stops_the_cycle_and_the_last_checkpoint_stays_usable(
    cycle: Any, tiny_params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second iteration the weights of the policy are broken."""
    from components.alignment.dpo import learner as module

    params = tiny_params()
    expected = cycle(params, "whole")
    comparisons = read_rows(Place().clean / "comparisons_reward_model.jsonl", Comparison)

    class BreakingIt(module.Updater):
        def update(self, rows: Any, iteration: int) -> Any:
            if iteration == 1:
                with torch.no_grad():
                    self._policy.model.norm.weight[0] = torch.nan
            return super().update(rows, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(module, "Updater", BreakingIt)
        with pytest.raises(TrainingError, match="dpo, iteration 2, comparisons") as caught:
            cycle(params, "work")
    first = rows_of_iteration([row.id for row in comparisons], 4, 1, params.seed, "dpo/comparisons")[:2]
    assert caught.value.where.split("comparisons ")[1] in first  # a microbatch is one comparison
    assert read_json(Path("work/state/progress.json")) == {"method": "dpo", "iteration": 1}
    assert cycle(params, "work") == expected
    assert digest(Path("work")) == digest(Path("whole"))


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without_a_key(file: Path) -> None:
    write_json(file, {})


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state/progress.json", cut_short),
        ("state/progress.json", without_a_key),
        ("policy/model.safetensors", cut_short),
    ],
)
def test_a_damaged_start_is_an_error_that_names_it(
    cycle: Any, tiny_params: Any, name: str, damage: Callable[[Path], None]
) -> None:
    params = tiny_params(dpo={"iterations_per_cycle": 1})
    cycle(params, "first")
    damage(Path("first", name))
    with pytest.raises(ArtifactError) as caught:
        cycle(params, "second", number=2, start=Path("first"))
    assert "first" in caught.value.where
    assert not Path("second").exists()
