"""What lives in memory while a policy is aligned, phase by phase, for every method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.q_learning.model import QLearner
from components.config import BestOfN, Dpo, OnlineDpo, PolicyGradientMethod, Ppo, QLearning
from components.core.ilql import ilql_losses
from components.engines.vllm_probe import probe_of
from components.interface.plan.live_bytes import counted
from components.interface.plan.models import Models
from components.interface.plan.roles import Phase, Roles
from components.interface.plan.workbench import Workbench
from components.models.guided import Head, QHeads
from components.passes.forward import response_logprobs, sequence_scores


class AlignmentPhases(Workbench):
    """Runs the phases of params' method on shapes."""

    def of_method(self) -> dict[str, Callable[[], Phase]]:
        """By name, each to be run alone."""
        settings = self.params.alignment
        if isinstance(settings, PolicyGradientMethod):
            return {"rollouts": self.rollouts, "scoring": self.scoring, "updates": self.updates}
        if isinstance(settings, OnlineDpo):
            return {"rollouts": self.rollouts, "scoring": self.scoring, "updates": self.dpo_updates}
        if isinstance(settings, Dpo):
            return {"updates": self.dpo_updates}
        if isinstance(settings, QLearning):
            return {"updates": self.q_updates}
        assert isinstance(settings, BestOfN)
        return {"rollouts": self.best_of_n}

    def rollouts(self) -> Phase:
        with counted() as live:
            models, roles = self._begin(live)
            model = self._actor_critic(models, roles)
            self._frozen(models, roles)
            training = self._moments(live, model)
            if self.params.generation.engine != "own":  # only its weights are looked at here
                part = self._sequences([(1, length - 1) for length in self._probe()], model.policy)
                live.reset()
                with torch.no_grad(), self._autocast():
                    response_logprobs(model.policy, part, 1.0)
                return roles.phase("alignment", "rollouts", training, live)
            return self._generated(live, roles, model.policy, "rollouts", training, self.lengths.prompts)

    def scoring(self) -> Phase:
        settings = self.params.alignment
        assert isinstance(settings, PolicyGradientMethod | OnlineDpo)
        with counted() as live:
            models, roles = self._begin(live)
            model = self._actor_critic(models, roles)
            reference, reward_models = self._frozen(models, roles)
            training = self._moments(live, model)
            part = self._sequences(self._longest_rollouts(settings.microbatch_size), *model.models)
            live.reset()
            with torch.no_grad(), self._autocast():
                kept = [model(part, settings.temperature), response_logprobs(reference, part, settings.temperature)]
                kept += [sequence_scores(scorer, part) for scorer in reward_models]
            del kept
            return roles.phase("alignment", "scoring", training, live)

    def updates(self) -> Phase:
        settings = self._policy_gradient
        with counted() as live:
            models, roles = self._begin(live)
            model = self._actor_critic(models, roles)
            self._frozen(models, roles)
            in_minibatch = settings.rollouts_per_iteration // settings.minibatches
            worst = self._longest_rollouts(min(settings.microbatch_size, in_minibatch))

            def loss(part: Any) -> Tensor:
                output = model(part, settings.temperature)
                entropy = output.entropy.sum() if settings.entropy_coef else output.entropy.detach().sum()
                total: Tensor = output.logprobs.exp().sum() + output.values.square().sum() + entropy
                return total

            accumulates = in_minibatch > settings.microbatch_size
            return self._trained(live, roles, "alignment", "updates", model, loss, worst, accumulates=accumulates)

    def dpo_updates(self) -> Phase:
        settings = self.params.alignment
        assert isinstance(settings, Dpo | OnlineDpo)
        if isinstance(settings, OnlineDpo):  # chosen and rejected are responses to the same prompts
            worst = 2 * self._longest_rollouts(settings.microbatch_size)
        else:
            worst = self._worst_pairs("reward_model", settings)
        with counted() as live:
            models, roles = self._begin(live)
            policy = roles.add("policy", models.policy(trained=True), trained=True)
            self._frozen(models, roles)
            accumulates = settings.batch_size > settings.microbatch_size
            return self._trained(
                live, roles, "alignment", "updates", policy,
                lambda part: response_logprobs(policy, part, 1.0).sum(), worst, accumulates=accumulates,
            )  # fmt: skip

    def q_updates(self) -> Phase:
        settings = self.params.alignment
        assert isinstance(settings, QLearning)
        worst = self._worst_pairs("reward_model", settings)
        with counted() as live:
            models, roles = self._begin(live)
            policy = roles.add("policy", models.policy(trained=True), trained=True)
            vocabulary, hidden = policy.get_output_embeddings().weight.shape
            heads = roles.add("heads", nn.ModuleList([Head(hidden, 1), QHeads(hidden, vocabulary)]), trained=True)
            targets = roles.add("target heads", QHeads(hidden, vocabulary).requires_grad_(False))
            self._frozen(models, roles)
            learner = QLearner(policy, *heads)

            def loss(part: Any) -> Tensor:
                output = learner(part)
                with torch.no_grad():
                    of_targets = targets(output.hidden)
                losses = ilql_losses(
                    output.logits,
                    output.q_heads,
                    of_targets,
                    output.values,
                    part.response_tokens,
                    torch.zeros_like(output.values),
                    part.response_mask,
                    gamma=settings.gamma,
                    tau=settings.tau,
                    beta=settings.awac_beta,
                )
                total: Tensor = torch.stack([term.sum() for term in losses]).sum()
                return total

            accumulates = settings.batch_size > settings.microbatch_size
            return self._trained(live, roles, "alignment", "updates", learner, loss, worst, accumulates=accumulates)

    def best_of_n(self) -> Phase:
        """Nothing is trained: batches of responses are sampled and scored."""
        with counted() as live:
            models, roles = self._begin(live)
            reference, _ = self._frozen(models, roles)
            return self._generated(live, roles, reference, "rollouts", 0, self.lengths.prompts, stage="alignment")

    def _probe(self) -> list[int]:
        """Lengths of the prompts that another engine's weights are seen by."""
        longest = sorted((length for length in self.lengths.prompts if length > 1), reverse=True)
        return [len(prompt) for prompt in probe_of([[number] * length for number, length in enumerate(longest)])]

    @property
    def _policy_gradient(self) -> PolicyGradientMethod:
        settings = self.params.alignment
        assert isinstance(settings, PolicyGradientMethod)
        return settings

    def _actor_critic(self, models: Models, roles: Roles) -> ActorCritic:
        policy = roles.add("policy", models.policy(trained=True), trained=True)
        if not isinstance(self.params.alignment, Ppo):
            return ActorCritic(policy, None)
        return ActorCritic(policy, roles.add("value model", models.scalar(trained=True), trained=True))
