"""Phase 1 against plain Hugging Face, one unpadded sequence at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.checkpoint import load_model
from components.alignment.policy_gradient.learner import parameter_groups
from components.alignment.policy_gradient.rollouts import Collector, EncodedPrompt, Rollouts
from components.config import Params
from components.errors import TrainingError
from components.measuring.measure import FrozenModels
from components.place import Place
from components.training.schedule import make_optimizer

Pairs = list[tuple[list[int], list[int]]]
TEMPERATURE = 0.8


@torch.no_grad()
def distribution(policy: Any, prompt: list[int], response: list[int]) -> torch.distributions.Categorical:
    """What the policy says before each response token."""
    logits = policy(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return torch.distributions.Categorical(logits=logits / TEMPERATURE)


@torch.no_grad()
def scalar(model: Any, tokens: list[int]) -> float:
    """What the classifier says of a sequence, read at its end, normalised."""
    config = model.classifier.config
    return (float(model.classifier(torch.tensor([tokens])).logits[0, 0]) - config.score_mean) / config.score_std


def test_every_recorded_number_is_hugging_faces(
    rollouts: Rollouts, pairs: Pairs, model: ActorCritic, frozen: FrozenModels
) -> None:
    for row, (prompt, response) in enumerate(pairs):
        length, tokens = len(response), torch.tensor(response)
        policy, reference = (distribution(m, prompt, response) for m in (model.policy, frozen.reference))
        logprobs = policy.log_prob(tokens)
        torch.testing.assert_close(rollouts.old_logprobs[row, :length], logprobs, rtol=0, atol=1e-5)
        torch.testing.assert_close(rollouts.entropy[row, :length], policy.entropy(), rtol=0, atol=1e-5)
        torch.testing.assert_close(rollouts.ref_logprobs[row, :length], reference.log_prob(tokens), rtol=0, atol=1e-5)
        values = [scalar(model.value_model, prompt + response[:step]) for step in range(length)]
        assert rollouts.values[row, :length].tolist() == pytest.approx(values, abs=1e-5)
        score = scalar(frozen.reward_model.token_model, prompt + response)
        assert float(rollouts.scores[row]) == pytest.approx(score, abs=1e-5)


def test_ended_says_which_responses_have_their_end_token(
    accelerator: Accelerator, model: ActorCritic, frozen: FrozenModels, prompts: list[EncodedPrompt], params: Params
) -> None:
    ended: list[bool] = []
    for iteration in range(6):  # until both kinds have been seen
        rollouts = Collector(
            accelerator, model, frozen.reference, frozen, params.alignment, params.shared, params.method
        ).roll_out(prompts, iteration)
        for row, mask in enumerate(rollouts.sequences.response_mask):
            ended.append(int(rollouts.sequences.response_tokens[row][mask][-1]) == frozen.codec.eos_id)
            assert bool(rollouts.ended[row]) == ended[-1]
    assert True in ended and False in ended


def test_the_number_of_rows_worked_on_at_once_changes_nothing(
    accelerator: Accelerator,
    model: ActorCritic,
    frozen: FrozenModels,
    prompts: list[EncodedPrompt],
    tiny_params: Callable[..., Params],
) -> None:
    def numbers(batch_size: int, microbatch_size: int) -> tuple[Tensor, ...]:
        changed = tiny_params(
            measurement={"batch_size": batch_size}, ppo={"microbatch_size": microbatch_size, "minibatches": 1}
        )
        rollouts = Collector(
            accelerator, model, frozen.reference, frozen, changed.alignment, changed.shared, changed.method
        ).roll_out(prompts[:8], iteration=1)
        mask = rollouts.sequences.response_mask
        recorded = [column[mask] if column.dim() == 2 else column for column in rollouts[1:-1]]
        return *rollouts.sequences, *recorded

    whole = numbers(8, 8)
    for sizes in ((1, 1), (3, 5)):
        for column, expected in zip(numbers(*sizes), whole, strict=True):
            torch.testing.assert_close(column, expected, rtol=0, atol=1e-5)


def test_iterations_and_seeds_answer_differently_and_each_answers_alike_again(
    accelerator: Accelerator,
    model: ActorCritic,
    frozen: FrozenModels,
    prompts: list[EncodedPrompt],
    tiny_params: Callable[..., Params],
) -> None:
    def answers(seed: int, iteration: int) -> Any:
        params = tiny_params(seed=seed)
        rollouts = Collector(
            accelerator, model, frozen.reference, frozen, params.alignment, params.shared, params.method
        ).roll_out(prompts, iteration)
        return rollouts.sequences.response_tokens.tolist()

    assert answers(1, 0) == answers(1, 0)
    assert answers(1, 0) != answers(1, 1)
    assert answers(1, 0) != answers(2, 0)


def test_a_nan_weight_stops_and_names_the_rows_that_it_reached(
    accelerator: Accelerator, model: ActorCritic, frozen: FrozenModels, prompts: list[EncodedPrompt], params: Params
) -> None:
    """The value model's embedding of one token is NaN: the rows with that token in their prompt are broken."""
    counts = [sum(token in prompt.tokens for prompt in prompts) for token in range(300)]
    rare = next(token for token, count in enumerate(counts) if 0 < count < 4 and token > 2)
    answered = (
        Collector(accelerator, model, frozen.reference, frozen, params.alignment, params.shared, params.method)
        .roll_out(prompts, 0)
        .sequences.tokens
    )
    expected = (answered == rare).any(dim=1).nonzero().flatten().tolist()
    with torch.no_grad():
        model.value_model.classifier.get_input_embeddings().weight[rare] = torch.nan
    with pytest.raises(TrainingError, match="values") as caught:
        Collector(
            accelerator, model, frozen.reference, frozen, params.alignment, params.shared, params.method
        ).roll_out(prompts, 0)
    assert caught.value.where == f"ppo, iteration 1, values, row(s) {', '.join(map(str, expected))}"


def test_a_broken_policy_stops_too(
    accelerator: Accelerator, model: ActorCritic, frozen: FrozenModels, prompts: list[EncodedPrompt], params: Params
) -> None:
    with torch.no_grad():
        model.policy.lm_head.weight[3, 0] = torch.nan
    with pytest.raises(TrainingError, match="the policy's logits"):  # before it has answered anything
        Collector(
            accelerator, model, frozen.reference, frozen, params.alignment, params.shared, params.method
        ).roll_out(prompts, 0)


def test_in_half_precision_policy_and_reference_are_computed_alike(
    world: Path, frozen: FrozenModels, prompts: list[EncodedPrompt], params: Params
) -> None:
    """With policy = reference the KL is 0 in bfloat16 too; with one of the two in float32 it would be off by 0.01."""
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = Accelerator(mixed_precision="bf16", cpu=True)
        model = load_model(Place().sft / "policy", Place().reward_model / "model")
        accelerator.prepare(model, make_optimizer(parameter_groups(model, params.ppo, params.ppo), 0.0))
        rollouts = Collector(
            accelerator, model, frozen.reference, frozen, params.alignment, params.shared, params.method
        ).roll_out(prompts, 0)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    mask = rollouts.sequences.response_mask
    torch.testing.assert_close(rollouts.old_logprobs[mask], rollouts.ref_logprobs[mask], rtol=2e-6, atol=2e-6)
