"""How many tokens a run samples, passes through and trains on, stage by stage."""

from __future__ import annotations

from typing import NamedTuple

from components.alignment.best_of_n.learner import responses_of_cycle
from components.config import BestOfN, CriticFree, Dpo, OnlineDpo, Params, PolicyGradientMethod, Ppo, QLearning
from components.interface.plan.lengths import Lengths


class Tokens(NamedTuple):
    """Tokens of one stage; what is sampled is taken to be as long as it may be.

    Args:
        passed: forward without gradients, counted for every model that they pass.
        trained: forward and backward, counted for every model.
    """

    stage: str
    sampled: int
    passed: int
    trained: int


def tokens_of(params: Params, lengths: Lengths) -> list[Tokens]:
    """All stages that compute with a model."""
    response = params.language_model.max_response_tokens
    found = []
    if params.sft.epochs:
        found.append(Tokens("sft", 0, 0, params.sft.epochs * sum(map(sum, lengths.demonstrations))))
    for stage in ("reward_model", "judge"):
        section = getattr(params, stage)
        if not section.is_trained:
            continue
        trained = section.epochs * section.members * sum(sum(a) + sum(b) for a, b in lengths.comparisons[stage])
        prompts = lengths.prompts[: section.normalisation_prompts]
        passed = section.members * (sum(prompts) + len(prompts) * response)
        found.append(Tokens(stage, len(prompts) * response, passed, trained))
    found += [_cycle(params, lengths, number) for number in params.cycles]
    samples = params.measurement.test_samples_per_prompt
    measured = samples * (sum(lengths.tested) + len(lengths.tested) * response)
    return [*found, Tokens("evaluation", 2 * samples * len(lengths.tested) * response, 2 * 4 * measured, 0)]


def _cycle(params: Params, lengths: Lengths, number: str) -> Tokens:
    settings, response = params.alignment, params.language_model.max_response_tokens
    samples = params.measurement.validation_samples_per_prompt * (2 if number == "1" else 1)  # its start, too
    sampled = samples * len(lengths.validated) * response
    passed = 4 * (samples * sum(lengths.validated) + sampled)
    trained = 0
    if isinstance(settings, PolicyGradientMethod):
        rollouts = settings.iterations_per_cycle * settings.rollouts_per_iteration
        whole = round(rollouts * (sum(lengths.prompts) / len(lengths.prompts) + response))
        models = 2 if isinstance(settings, Ppo) else 1
        # every round may have to replace all prompts
        draws = 1 + settings.dynamic_sampling_rounds if isinstance(settings, CriticFree) else 1
        sampled += draws * rollouts * response
        passed += draws * (models + 2) * whole
        trained = models * settings.epochs * whole
    elif isinstance(settings, OnlineDpo):  # without ties
        asked = settings.iterations_per_cycle * settings.prompts_per_iteration
        mean = sum(lengths.prompts) / len(lengths.prompts) + response
        sampled += asked * settings.responses_per_prompt * response
        passed += round(3 * asked * settings.responses_per_prompt * mean)  # policy, reference, reward model
        trained = round(2 * asked * mean)
    elif isinstance(settings, (Dpo, QLearning)):
        pairs = lengths.comparisons["reward_model"]
        mean = sum(sum(a) + sum(b) for a, b in pairs) / len(pairs)
        trained = round(settings.iterations_per_cycle * settings.comparisons_per_iteration * mean)
        sampled += settings.iterations_per_cycle * settings.progress_prompts * response
        # By the reference, each iteration's; or by the reward model, all that there are.
        passed += trained if isinstance(settings, Dpo) else round(len(pairs) * mean)
    elif isinstance(settings, BestOfN):
        candidates = responses_of_cycle(settings, int(number))
        prompt = sum(lengths.prompts) / len(lengths.prompts)
        sampled = candidates * (sampled + settings.progress_prompts * response)
        passed += round(sampled / response * (prompt + response))  # by the reward model, which chooses
    return Tokens(f"alignment {number}", sampled, passed, trained)
