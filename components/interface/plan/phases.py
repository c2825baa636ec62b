"""What lives in memory in each phase of a run: its code runs on shapes alone, with the sequences that take most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from components.core.losses import bradley_terry_loss
from components.interface.plan.alignment_phases import AlignmentPhases
from components.interface.plan.live_bytes import counted
from components.interface.plan.roles import Phase
from components.passes.forward import response_logprobs, response_logprobs_and_entropy, sequence_scores


class Simulation(AlignmentPhases):
    """Runs the phases of params on shapes."""

    def phases(self) -> dict[str, Callable[[], Phase]]:
        """By name, each to be run alone."""
        found: dict[str, Callable[[], Phase]] = {}
        if self.params.sft.epochs:
            found["sft"] = self.sft
        for stage in ("reward_model", "judge"):
            if getattr(self.params, stage).is_trained:
                found[stage] = lambda stage=stage: self.scorer(stage)  # type: ignore[misc]
        found |= self.of_method()
        return found | {"evaluation": self.evaluation}

    def sft(self) -> Phase:
        settings = self.params.sft
        rows = self.lengths.demonstrations
        with counted() as live:
            models, roles = self._begin(live)
            policy = roles.add("policy", models.policy(trained=True), trained=True)
            worst = self._worst(rows, settings)
            return self._trained(
                live, roles, "sft", "training", policy, lambda part: -response_logprobs(policy, part, 1.0).sum(), worst,
                accumulates=settings.batch_size > settings.microbatch_size,
            )  # fmt: skip

    def scorer(self, stage: str) -> Phase:
        settings = getattr(self.params, stage)
        worst = self._worst_pairs(stage, settings)
        with counted() as live:
            models, roles = self._begin(live)
            kept = [roles.add(stage, models.scalar(trained=True), trained=True) for _ in range(settings.members)]

            def loss(part: Any) -> Tensor:
                chosen, rejected = sequence_scores(kept[0], part).chunk(2)
                return bradley_terry_loss(chosen, rejected).sum()

            accumulates = settings.batch_size > settings.microbatch_size
            return self._trained(live, roles, stage, "training", kept[0], loss, worst, accumulates=accumulates)

    def evaluation(self) -> Phase:
        """Generation and measurement: the larger of the two."""
        settings = self.params.measurement
        samples = settings.test_samples_per_prompt
        prompts = sorted((each for each in self.lengths.tested for _ in range(samples)), reverse=True)
        with counted() as live:
            models, roles = self._begin(live)
            policy = roles.add("policy", models.policy(trained=False))
            reference, reward_models = self._frozen(models, roles)
            judge = self._scorers(models, roles, "judge")
            generated = self._generated(live, roles, policy, "generation", 0, prompts, mixed=False)
            response = self.params.language_model.max_response_tokens
            part = self._sequences([(prompt, response) for prompt in prompts[: settings.batch_size]], policy)
            live.reset()
            with torch.no_grad():
                kept: list[Any] = [response_logprobs_and_entropy(policy, part, settings.temperature)]
                kept.append(response_logprobs(reference, part, settings.temperature))
                kept += [sequence_scores(scorer, part) for scorer in (*reward_models, *judge)]
            del kept
            measured = roles.phase("evaluation", "measurement", 0, live)
            return max(generated, measured, key=lambda phase: phase.total)
