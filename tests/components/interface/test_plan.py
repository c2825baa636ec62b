"""`proximal plan`: bytes counted by hand, and the peak of a real training run."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from components.config import Params
from components.config.accelerate import AccelerateConfig
from components.errors import ConfigError
from components.interface.plan.beside import offloaded
from components.interface.plan.device import device_of
from components.interface.plan.estimate import estimate
from components.interface.plan.lengths import Lengths, largest_microbatch
from components.interface.plan.live_bytes import counted
from components.interface.plan.models import shape_of
from components.interface.plan.phases import Simulation
from components.interface.plan.processes import of_one_process
from components.interface.plan.seconds import seconds_of
from components.interface.plan.table import plan_tables
from components.interface.plan.tokens import Tokens, tokens_of
from components.place import Place
from flows.cli import commands

Tree = dict[str, Any]

VOCABULARY, HIDDEN, INNER, LAYERS = 300, 8, 16, 2
# Embeddings (tied), then of each layer q, k, v, o, three of the MLP and two norms, then the last norm.
PARAMETERS = VOCABULARY * HIDDEN + LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER + 2 * HIDDEN) + HIDDEN
TENSORS = 1 + LAYERS * 9 + 1
ROTARY = 2 * 2 * 4  # buffers: the frequencies of pairs in a head of 4, kept twice, in float32


@pytest.fixture
def small(make_small: Callable[[str], Params]) -> Params:
    return make_small("ppo")


@pytest.fixture
def make_small(tiny_params: Callable[..., Params]) -> Callable[[str], Params]:
    """The tiny params of a method, with sizes to count by hand."""
    scratch = {"vocabulary_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INNER, "layers": LAYERS,
               "attention_heads": 2}  # fmt: skip
    language_model = {"scratch": scratch, "max_prompt_tokens": 6, "max_response_tokens": 4}
    return lambda method: tiny_params(method=method, language_model=language_model)


def simulation(params: Params, *, mixed: bool = False) -> Simulation:
    many = [(6, 4)] * 64
    pairs = {stage: list(zip(many, many, strict=True)) for stage in ("reward_model", "judge")}
    lengths = Lengths(many, pairs, [6] * 64, [6] * 64, [6] * 64, "here", are_rows=True)
    return Simulation(params, shape_of(params.language_model, VOCABULARY), lengths, mixed=mixed)


def test_bytes_live_from_the_operation_that_makes_them_until_nobody_holds_them() -> None:
    with counted() as live:
        first = torch.zeros(1000)
        second = first.view(10, 100) + 1.0  # the view is the same storage
        assert (live.now, live.peak) == (8000, 8000)
        del first
        gc.collect()
        assert (live.now, live.peak) == (4000, 8000)
        live.reset()
        third = second.to(torch.bfloat16)
        assert (live.now, live.peak) == (6000, 6000)
        assert third.shape == (10, 100)


def test_weights_gradients_and_moments_are_counted_by_hand(small: Params) -> None:
    phase = simulation(small).sft()
    assert phase.parameters == PARAMETERS
    assert phase.roles == {"policy": 4 * PARAMETERS + ROTARY}
    # A gradient, two moments, and of each tensor the number of its steps.
    assert phase.training == 12 * PARAMETERS + 4 * TENSORS
    assert phase.work > 0


def test_online_dpo_samples_scores_and_trains_the_policy_alone(small: Params) -> None:
    online = small.model_copy(update={"method": "online_dpo"})
    phases = simulation(online).phases()
    assert {"rollouts", "scoring", "updates"} <= phases.keys()
    phase = phases["updates"]()
    assert phase.roles.keys() == {"policy", "reference", "reward model"}
    assert phase.training == 12 * PARAMETERS + 4 * TENSORS
    # Three iterations of four prompts of six tokens, two responses of four: 24 responses, of which 24 are in pairs.
    planned = next(tokens for tokens in tokens_of(online, simulation(online).lengths) if tokens.stage == "alignment 2")
    measured = 2 * 64 * 10
    assert (planned.sampled, planned.trained) == (24 * 4 + 2 * 64 * 4, 24 * 10)
    assert planned.passed == 4 * measured + 3 * 24 * 10


def test_every_role_of_ppo_holds_its_weights(small: Params) -> None:
    scalar = PARAMETERS + HIDDEN  # a trunk has the embeddings too, and a head
    phase = simulation(small).updates()
    assert phase.roles == {
        "policy": 4 * PARAMETERS + ROTARY,
        "value model": 4 * scalar + ROTARY,
        "reference": 4 * PARAMETERS + ROTARY,
        "reward model": 4 * scalar + ROTARY,
    }
    assert phase.training == 12 * (PARAMETERS + scalar) + 4 * (2 * TENSORS + 1)


def test_adapters_share_one_base_in_half_precision(small: Params) -> None:
    content = small.model_dump(mode="json")
    adapter = {"kind": "lora", "rank": 2, "alpha": 4, "target_modules": ["q_proj", "o_proj"]}
    content["language_model"] |= {"checkpoint": "somewhere", "adapter": adapter, "dtype": "bfloat16"}
    changed = Params.model_validate(content)
    found = simulation(small)
    shaped = Simulation(changed, found.shape, found.lengths, mixed=False)
    phase = shaped.updates()
    one = 4 * LAYERS * 2 * 2 * (HIDDEN + HIDDEN)  # float32, of each layer two linear ones, rank 2, in and out
    head = 4 * HIDDEN
    assert phase.roles["policy"] == 2 * PARAMETERS + one + ROTARY
    assert phase.roles["reference"] == one
    assert phase.roles["value model"] in (one + head, one + head // 2)
    assert phase.training < 12 * 3 * (one + head)


def test_the_largest_microbatch_is_of_like_lengths() -> None:
    # Of one batch in order 1 2 3 | 4 5 6: the second part.
    assert sorted(largest_microbatch([6, 1, 5, 2, 4, 3], batch_size=6, size=3)) == [0, 2, 4]


def test_the_knobs_are_named_where_it_does_not_fit(small: Params, tmp_path: Path) -> None:
    (tmp_path / small.compute.accelerate_config).parent.mkdir(parents=True)
    repository = Path(__file__).parents[3]
    (tmp_path / small.compute.accelerate_config).write_text((repository / small.compute.accelerate_config).read_text())
    found = estimate(small, Place(tmp_path), device_of("0.0001"))
    assert not found.fits
    changes = [change for change, _ in found.knobs]
    assert "language_model.dtype: bfloat16" in changes
    assert all(size < found.peak.total for _, size in found.knobs)
    assert json.loads(json.dumps(found.plain()))["fits"] is False
    assert "DOES NOT FIT" in str([getattr(part, "plain", "") for part in plan_tables(found).renderables])
    assert estimate(small, Place(tmp_path), device_of("80")).fits


def test_a_device_that_is_none_is_refused() -> None:
    for text in ("tpu", "-1", "nan"):
        with pytest.raises(ConfigError, match="no such device"):
            device_of(text)


def test_the_command_prints_a_plan_of_the_shipped_params() -> None:
    told = CliRunner().invoke(commands, ["plan", "--device", "80"])
    assert told.exit_code == 0, told.output
    assert "fits: the peak is" in told.output


def test_a_round_of_dynamic_sampling_may_ask_as_much_again(tiny_params: Callable[..., Params]) -> None:
    """3 iterations of 8 responses of 4 tokens to prompts of 6, once or three times; all of them go through 3 models."""
    found = {}
    for rounds in (0, 2):
        params = tiny_params(
            method="grpo", grpo={"dynamic_sampling_rounds": rounds}, language_model={"max_response_tokens": 4}
        )
        lengths = Lengths([(6, 4)], {"reward_model": [], "judge": []}, [6], [6], [6], "here", are_rows=True)
        found[rounds] = next(each for each in tokens_of(params, lengths) if each.stage == "alignment 1")
    assert found[2].sampled - found[0].sampled == 2 * 3 * 8 * 4
    assert found[2].passed - found[0].passed == 2 * 3 * 8 * (6 + 4) * 3
    assert found[2].trained == found[0].trained


def test_a_device_is_this_machine_a_size_or_a_name() -> None:
    assert device_of("80").memory == device_of("80GiB").memory == 80 * 2**30
    assert device_of("80GB").memory == 80 * 10**9
    assert device_of("h100-80gb").memory == 81_559 * 2**20  # as nvidia-smi has it
    assert not device_of("cpu").is_gpu


def sharded(content: Tree, count: int, **fsdp: Any) -> AccelerateConfig:
    given = {"fsdp_version": 2, "fsdp_reshard_after_forward": True, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}
    return AccelerateConfig.model_validate(
        {"use_cpu": False, "distributed_type": "FSDP", "num_processes": count, "fsdp_config": given | fsdp} | content
    )


def test_fsdp_leaves_each_process_its_share_and_gathers_a_layer(small: Params) -> None:
    whole = simulation(small).sft()
    layer = 4 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER + 2 * HIDDEN)
    root = 4 * (VOCABULARY * HIDDEN + HIDDEN)  # the embeddings and the last norm
    mine = of_one_process(whole, sharded({"mixed_precision": "no"}, 4))
    assert mine.roles["policy"] == -(-whole.roles["policy"] // 4)
    assert mine.training == -(-whole.training // 4)
    assert mine.work == whole.work + root + 2 * layer + layer  # two layers' weights and one layer's gradients
    unwrapped = sharded({"mixed_precision": "no"}, 4, fsdp_auto_wrap_policy="NO_WRAP")
    assert of_one_process(whole, unwrapped).work == whole.work + whole.roles["policy"] + layer


def test_zero_shares_out_a_copy_of_the_weights_too(small: Params) -> None:
    """ZeRO-2 keeps weights whole; of a small model ZeRO-3 has all gathered at once, by DeepSpeed's defaults."""
    whole = simulation(small).sft()
    policy = whole.roles["policy"]
    gradients = whole.training // 3  # beside two moments
    content = {"use_cpu": False, "mixed_precision": "no", "num_processes": 4, "distributed_type": "DEEPSPEED"}
    two, three = (
        of_one_process(whole, AccelerateConfig.model_validate(content | {"deepspeed_config": {"zero_stage": stage}}))
        for stage in (2, 3)
    )
    assert (two.roles["policy"], three.roles["policy"]) == (policy, -(-policy // 4))
    assert two.training == three.training  # four times its bytes, by four
    assert two.training == pytest.approx(policy, rel=0.01)  # reason: an optimiser also counts steps, a number a weight
    assert (two.work, three.work) == (whole.work + gradients, whole.work + gradients + policy)


def test_frozen_models_and_those_of_an_evaluation_are_whole_in_every_process(small: Params) -> None:
    config = sharded({"mixed_precision": "no"}, 2)
    whole = simulation(small).updates()
    mine = of_one_process(whole, config)
    assert mine.roles["reference"] == whole.roles["reference"]
    assert mine.roles["value model"] == -(-whole.roles["value model"] // 2)
    measured = simulation(small).evaluation()
    assert of_one_process(measured, config) == measured


def test_gathered_weights_are_in_what_is_computed_in_so_that_autocast_copies_none(small: Params) -> None:
    config, float32 = sharded({"mixed_precision": "bf16"}, 2), sharded({"mixed_precision": "no"}, 2)
    layer = 4 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER + 2 * HIDDEN)
    root = 4 * (VOCABULARY * HIDDEN + HIDDEN + HIDDEN)  # the value model's: embeddings, the last norm and the head
    asked = simulation(small, mixed=True).scoring()
    copied = asked.roles["policy"] + asked.roles["value model"] - 2 * root  # half of it, for bfloat16
    assert of_one_process(asked, config).work == asked.work - copied // 2 + (root + 2 * layer) // 2
    asked = simulation(small).scoring()
    assert of_one_process(asked, float32).work == asked.work + root + 2 * layer
    sampled = simulation(small, mixed=True).rollouts()  # the value model says nothing there
    whole = sampled.roles["policy"]
    assert of_one_process(sampled, config).work == sampled.work - (whole - sampled.root) // 2 + whole // 2


@pytest.mark.parametrize("name", ["rollouts", "updates"])
def test_frozen_models_leave_a_gpu_where_nobody_asks_them(small: Params, name: str) -> None:
    phase = getattr(simulation(small), name)()
    asked = small.model_copy(
        update={"language_model": small.language_model.model_copy(update={"offload_frozen": True})}
    )
    away = offloaded(phase, asked, device_of("h100-80gb")).roles
    assert away["reference"] == away["reward model"] == 0
    assert away["policy"] == phase.roles["policy"] > 0
    scoring = simulation(small).scoring()
    assert offloaded(scoring, asked, device_of("h100-80gb")) == scoring
    assert offloaded(phase, asked, device_of("cpu")) == phase


@pytest.mark.parametrize("method", ["dpo", "q_learning", "best_of_n"])
def test_every_method_is_planned(make_small: Callable[[str], Params], method: str) -> None:
    found = simulation(make_small(method))
    [phase] = [run() for run in found.of_method().values()]
    assert phase.stage == "alignment"
    if method == "q_learning":  # hidden -> twice as many -> outputs, with biases, float32
        head = 2 * HIDDEN * (HIDDEN + 1)
        q_heads = 2 * (head + VOCABULARY * (2 * HIDDEN + 1))
        assert phase.roles["target heads"] == 4 * q_heads
        assert phase.roles["heads"] == 4 * (q_heads + head + 2 * HIDDEN + 1)
    assert phase.trains == (method != "best_of_n")
    assert (phase.training == 0) == (method == "best_of_n")


def test_seconds_follow_from_operations_by_hand(small: Params) -> None:
    phase = simulation(small).sft()
    one = AccelerateConfig(use_cpu=False, mixed_precision="bf16", num_processes=1)
    device = device_of("a100-80gb")
    [found] = seconds_of([Tokens("sft", 0, 1000, 500)], phase, small, one, device, device.speed)
    rate = 0.35 * 312e12
    assert found.passing == pytest.approx(2 * PARAMETERS * 1000 / rate)
    assert found.training == pytest.approx(6 * PARAMETERS * 500 / rate)
    assert found.sampling == 0.0
    assert seconds_of([], phase, small, one, device_of("80"), None) == []
