"""Cycles of iterations: interrupted and resumed, cut in two, broken off by a NaN, with references that move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from new_optimizers import begin_anew
from ppo_cycles import Interruption
from safetensors.torch import load_file

from components.alignment.method import rows_of_iteration
from components.alignment.policy_gradient.checkpoint import load_model
from components.alignment.policy_gradient.learner import parameter_groups
from components.alignment.policy_gradient.rollouts import Collector
from components.artifacts import read_json
from components.digests import digest
from components.errors import TrainingError
from components.measuring.measure import FrozenModels
from components.models.loading import load_policy
from components.place import Place
from components.training.accelerator import start_accelerator

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


EVERYTHING = {
    "score_scaling": "running_mean_std",  # carries moments
    "reference": "averaged",  # carries a model
    "learning_rate_warmup_iterations": 1,
    "learning_rate_decay_iterations": 5,
}


@pytest.mark.parametrize("stop_in", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["as shipped", "all that is carried along"])
def test_an_interrupted_cycle_resumes_to_the_bit(cycle: Any, tiny_params: Any, settings: Any, stop_in: int) -> None:
    """Interrupted in the callback, an iteration's update is done and its checkpoint is not: that work is lost."""
    params = tiny_params(ppo=settings)
    expected = cycle(params, "whole")
    with pytest.raises(Interruption):
        cycle(params, "work", stop_in=stop_in)
    if stop_in == 1:
        assert not Path("work").exists()
    else:
        assert read_json(Path("work/state/progress.json"))["iteration"] == stop_in - 1
    assert cycle(params, "work") == expected
    assert digest(Path("work")) == digest(Path("whole"))  # policy, value model, optimiser, progress, curve
    names = {path.relative_to("whole").as_posix() for path in Path("whole").rglob("*") if path.is_file()}
    assert {"optimizer.safetensors", "policy/model.safetensors", "state/progress.json", "curve.json"} <= names


@pytest.mark.parametrize("settings", [{}, {"score_scaling": "running_std"}])
def test_two_cycles_are_one_of_twice_the_length_whose_optimiser_begins_anew_half_way(
    cycle: Any, tiny_params: Any, settings: Any
) -> None:
    """Nothing else is lost between cycles: KL coefficient, moments, and the place in the prompts go on."""
    short, long = (tiny_params(ppo=settings | {"iterations_per_cycle": count}) for count in (2, 4))
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


def test_microbatches_and_batches_change_nothing_but_the_speed(cycle: Any, tiny_params: Any) -> None:
    expected = cycle(tiny_params(ppo={"microbatch_size": 4}), "whole")
    found = cycle(tiny_params(ppo={"microbatch_size": 1}, measurement={"batch_size": 3}), "split")
    for row, expected_row in zip(found, expected, strict=True):
        assert row == pytest.approx(expected_row, rel=1e-3, abs=1e-4)
    for file in ("policy", "state/value_model"):
        whole, split = (load_file(Path(work, file, "model.safetensors")) for work in ("whole", "split"))
        for name, weight in whole.items():
            torch.testing.assert_close(split[name], weight, rtol=0, atol=1e-4)


def test_the_kl_coefficient_follows_the_target_and_the_fixed_one_stays(cycle: Any, tiny_params: Any) -> None:
    """error = clip(kl / target - 1, +-0.2); next = coefficient * (1 + error * 8 rollouts / horizon 100)."""
    settings = {"kl_coef": 0.1, "learning_rate": 0.02, "kl_horizon_rollouts": 100.0}
    fixed = cycle(tiny_params(ppo=settings | {"kl_control": "fixed"}), "fixed")
    assert [row["kl_coef"] for row in fixed] == [0.1, 0.1, 0.1]
    assert fixed[1]["kl"] > 0.05

    target = fixed[1]["kl"] / 1.1  # of the whole sequence; the second iteration is the same whatever the control
    adaptive = cycle(tiny_params(ppo=settings | {"target_kl_nats_per_sequence": target}), "adaptive")
    first = 0.1 * (1 - 0.2 * 8 / 100)  # the first iteration has a KL of 0: the largest step down
    assert adaptive[0]["kl_coef"] == 0.1
    assert adaptive[1]["kl_coef"] == pytest.approx(first, rel=1e-12)
    assert adaptive[2]["kl_coef"] == pytest.approx(first * (1 + 0.1 * 8 / 100), rel=1e-9)
    error = min(max(adaptive[2]["kl"] / target - 1, -0.2), 0.2)
    stored = read_json(Path("adaptive/state/progress.json"))["kl_coef"]
    assert stored == pytest.approx(adaptive[2]["kl_coef"] * (1 + error * 8 / 100), rel=1e-12)


def test_a_curve_row_tells_of_the_rollouts_it_comes_from(cycle: Any, tiny_params: Any, prompts: Any) -> None:
    params = tiny_params()
    row = cycle(params, "work")[0]
    model, frozen = (
        load_model(Place().sft / "policy", Place().reward_model / "model"),
        FrozenModels.load(Place().frozen, CPU),
    )
    batch = rows_of_iteration(prompts, 8, 0, params.seed, "ppo/prompts")
    rollouts = Collector(
        start_accelerator(), model, frozen.reference, frozen, params.alignment, params.shared, params.method
    ).roll_out(batch, 0)
    mask = rollouts.sequences.response_mask
    gaps = [float((a - b)[m].sum()) for a, b, m in zip(rollouts.old_logprobs, rollouts.ref_logprobs, mask, strict=True)]
    assert (row["cycle"], row["iteration"]) == (1, 1)
    assert row["kl"] == pytest.approx(sum(gaps) / 8, abs=1e-6)
    # Policy and reference come to their logprobs, and the row to its mean, on ways of their own: on another CPU they
    # may be 16 last bits apart, and how much those are follows from the size of what is subtracted or summed.
    rounding = 16 * torch.finfo(torch.float32).eps
    nats = float(rollouts.old_logprobs[mask].abs().sum()) / 8
    assert abs(row["kl"]) <= rounding * nats  # reason: 5e-5 nats of 26; the policy is the reference still
    assert row["reward"] == pytest.approx(sum(rollouts.scores.tolist()) / 8, abs=1e-6)
    assert row["response_tokens"] == sum(mask.sum(dim=1).tolist()) / 8
    entropy = float(rollouts.entropy[mask].mean())
    assert row["entropy"] == pytest.approx(entropy, rel=rounding)  # reason: 1.9e-6, as said above
    assert row["ended"] == sum(rollouts.ended.tolist()) / 8


def test_a_nan_stops_the_cycle_and_the_last_checkpoint_stays_usable(cycle: Any, tiny_params: Any) -> None:
    def break_reward_model(frozen: FrozenModels) -> None:
        with torch.no_grad():
            frozen.reward_model.token_model.classifier.score.weight[0, 0] = torch.nan  # type: ignore[union-attr,index]

    params = tiny_params()
    expected = cycle(params, "whole")
    with pytest.raises(TrainingError, match=r"iteration 2, scores, row\(s\) 0, 1, 2, 3, 4, 5, 6, 7"):
        cycle(params, "work", on_iteration=break_reward_model)
    assert read_json(Path("work/state/progress.json"))["iteration"] == 1
    assert cycle(params, "work") == expected
    assert digest(Path("work")) == digest(Path("whole"))


def test_a_reference_that_moves_starts_each_cycle_where_it_should(cycle: Any, tiny_params: Any) -> None:
    def weights(folder: str | Path) -> dict[str, torch.Tensor]:
        return dict(load_policy(Path(folder)).named_parameters())

    sft = weights(Place().sft / "policy")
    for reference, share in (("refreshed", 1.0), ("averaged", 0.25)):
        params = tiny_params(ppo={"reference": reference, "reference_average_weight": 0.25})
        cycle(params, f"{reference}-1")
        rows = cycle(params, f"{reference}-2", number=2, start=Path(f"{reference}-1"))
        before, after = weights(f"{reference}-1/policy"), weights(f"{reference}-2/state/reference")
        for name, weight in sft.items():  # cycle 1's reference is the SFT policy, whatever its average with itself
            torch.testing.assert_close(after[name], (1 - share) * weight + share * before[name], rtol=0, atol=1e-6)
        assert (rows[0]["kl"] == pytest.approx(0.0, abs=1e-5)) == (reference == "refreshed")
    cycle(tiny_params(), "fixed-1")
    assert not Path("fixed-1/state/reference").exists()


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_without_a_critic_there_is_no_value_model(cycle: Any, tiny_params: Any, estimator: str) -> None:
    params = tiny_params(method=estimator, **{estimator: {"responses_per_prompt": 4}})
    first = cycle(params, "first")
    assert not Path("first/state/value_model").exists()
    assert len(first) == 3 and all(row["policy_gradient_norm"] > 0 for row in first)
    with pytest.raises(Interruption):
        cycle(params, "second", number=2, start=Path("first"), stop_in=5)
    cycle(params, "second", number=2, start=Path("first"))
    cycle(params, "whole", number=2, start=Path("first"))
    assert digest(Path("second")) == digest(Path("whole"))


def test_truncated_responses_that_are_left_out_are_counted(cycle: Any, tiny_params: Any) -> None:
    rows = cycle(tiny_params(ppo={"mask_truncated": True, "missing_eos": "none"}), "work")
    assert [row["truncated_masked"] for row in rows] == [round(8 * (1 - row["ended"])) for row in rows]
    assert sum(row["truncated_masked"] for row in rows) > 0
    assert "truncated_masked" not in cycle(tiny_params(), "plain")[0]


def test_the_value_model_warms_up_before_the_policy_moves(cycle: Any, tiny_params: Any) -> None:
    cycle(tiny_params(ppo={"iterations_per_cycle": 2, "value_warmup_iterations": 2}), "work")
    assert digest(Path("work/policy/model.safetensors")) == digest(Place().sft / "policy" / "model.safetensors")
    value_model = Path("work/state/value_model/model.safetensors")
    assert digest(value_model) != digest(Place().reward_model / "model" / "model.safetensors")


def test_learning_rates_as_worked_by_hand(world: Path, tiny_params: Any) -> None:
    model = load_model(Place().sft / "policy", Place().reward_model / "model")
    rates = {"learning_rate": 6.0, "value_learning_rate": 12.0}

    def found(settings: Any, critic: Any) -> dict[str, list[float]]:
        groups = parameter_groups(model, settings, critic)
        return {
            name: [group.learning_rate * group.factor(iteration) for iteration in range(7)]
            for name, group in groups.items()
        }

    settings = tiny_params(
        ppo=rates
        | {
            "learning_rate_warmup_iterations": 2,
            "learning_rate_decay_iterations": 5,
            "value_warmup_iterations": 1,
        }
    ).ppo
    moving = found(settings, settings)
    assert moving["policy"] == pytest.approx([0, 6, 6, 4, 2, 0, 0])
    assert moving["value_model"] == pytest.approx([6, 12, 12, 8, 4, 0, 0])
    plain = tiny_params(ppo=rates).ppo
    assert found(plain, plain) == {"policy": [6.0] * 7, "value_model": [12.0] * 7}
    # Without a value model nothing waits for one.
    others = tiny_params(method="grpo", ppo={"value_warmup_iterations": 3}, grpo={"learning_rate": 6.0})
    assert found(others.alignment, None) == {"policy": [6.0] * 7}


@needs_gpu
def test_on_a_gpu_in_float32_it_is_the_cpus_cycle(cycle: Any, use_gpu: Any, tiny_params: Any) -> None:
    params = tiny_params(ppo={"iterations_per_cycle": 2})
    expected = cycle(params, "cpu")
    use_gpu("no")
    found = cycle(params, "gpu")
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=0.02, abs=2e-3)  # reason: sums in another order, two iterations long


@needs_gpu
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_on_a_gpu_twice_and_interrupted_it_gives_the_same_bytes(
    cycle: Any, use_gpu: Any, tiny_params: Any, precision: str
) -> None:
    use_gpu(precision)
    params = tiny_params()
    curve = cycle(params, "whole")
    assert cycle(params, "again") == curve
    with pytest.raises(Interruption):
        cycle(params, "resumed", stop_in=3)
    assert cycle(params, "resumed") == curve
    assert digest(Path("whole")) == digest(Path("again")) == digest(Path("resumed"))
