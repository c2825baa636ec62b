"""What lives in memory in each phase of a run: its code runs on shapes alone, with the sequences that take most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.config import Dpo, OnlineDpo, Optimisation, Params, PolicyGradientMethod, Ppo
from components.core.losses import bradley_terry_loss
from components.engines.cache import make_room
from components.engines.sampling import draw
from components.interface.plan.lengths import Lengths, Pair, largest_microbatch
from components.interface.plan.live_bytes import LiveBytes, counted, real
from components.interface.plan.models import Models
from components.interface.plan.roles import Phase, Roles
from components.passes.forward import prepared, response_logprobs, response_logprobs_and_entropy, sequence_scores
from components.passes.sequences import Packed, Sequences, build_sequences
from components.training.schedule import ParameterGroup, make_optimizer


class Simulation:
    """Runs the phases of params on shapes.

    Args:
        shape: the config of the policy's architecture.
        mixed: whether passes multiply in bfloat16 (Accelerate's mixed_precision).
    """

    def __init__(self, params: Params, shape: Any, lengths: Lengths, *, mixed: bool) -> None:
        self.params = params
        self._shape = shape
        self.lengths = lengths
        self._mixed = mixed

    def phases(self) -> dict[str, Callable[[], Phase]]:
        """By name, each to be run alone."""
        found: dict[str, Callable[[], Phase]] = {}
        if self.params.sft.epochs:
            found["sft"] = self.sft
        for stage in ("reward_model", "judge"):
            if getattr(self.params, stage).is_trained:
                found[stage] = lambda stage=stage: self.scorer(stage)  # type: ignore[misc]
        if isinstance(self.params.alignment, PolicyGradientMethod):
            found |= {"rollouts": self.rollouts, "scoring": self.scoring, "updates": self.updates}
        elif isinstance(self.params.alignment, OnlineDpo):
            found |= {"rollouts": self.rollouts, "scoring": self.scoring, "updates": self.dpo_updates}
        elif isinstance(self.params.alignment, Dpo):
            found["updates"] = self.dpo_updates
        return found | {"evaluation": self.evaluation}

    def sft(self) -> Phase:
        settings = self.params.sft
        rows = self.lengths.demonstrations
        with counted() as live:
            models, roles = self._begin(live)
            policy = roles.add("policy", models.policy(trained=True))
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
            kept = [roles.add(stage, models.scalar(trained=True)) for _ in range(settings.members)]

            def loss(part: Any) -> Tensor:
                chosen, rejected = sequence_scores(kept[0], part).chunk(2)
                return bradley_terry_loss(chosen, rejected).sum()

            accumulates = settings.batch_size > settings.microbatch_size
            return self._trained(live, roles, stage, "training", kept[0], loss, worst, accumulates=accumulates)

    def rollouts(self) -> Phase:
        with counted() as live:
            models, roles = self._begin(live)
            model = self._actor_critic(models, roles)
            self._frozen(models, roles)
            training = self._moments(live, model)
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
            policy = roles.add("policy", models.policy(trained=True))
            self._frozen(models, roles)
            accumulates = settings.batch_size > settings.microbatch_size
            return self._trained(
                live, roles, "alignment", "updates", policy,
                lambda part: response_logprobs(policy, part, 1.0).sum(), worst, accumulates=accumulates,
            )  # fmt: skip

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

    @property
    def _policy_gradient(self) -> PolicyGradientMethod:
        settings = self.params.alignment
        assert isinstance(settings, PolicyGradientMethod)
        return settings

    def _begin(self, live: LiveBytes) -> tuple[Models, Roles]:
        settings = self.params.language_model
        return Models(settings, self._shape), Roles(live, shared=settings.adapter is not None)

    def _actor_critic(self, models: Models, roles: Roles) -> ActorCritic:
        policy = roles.add("policy", models.policy(trained=True))
        with_critic = isinstance(self.params.alignment, Ppo)
        return ActorCritic(policy, roles.add("value model", models.scalar(trained=True)) if with_critic else None)

    def _frozen(self, models: Models, roles: Roles) -> tuple[Any, list[Any]]:
        """The reference and the reward model."""
        return roles.add("reference", models.policy(trained=False)), self._scorers(models, roles, "reward_model")

    def _scorers(self, models: Models, roles: Roles, section: str) -> list[Any]:
        settings = getattr(self.params, section)
        members = settings.members if settings.is_trained else 0
        return [roles.add(section.replace("_", " "), models.scalar(trained=False)) for _ in range(members)]

    def _longest_rollouts(self, size: int) -> list[Pair]:
        response = self.params.language_model.max_response_tokens
        return [(prompt, response) for prompt in sorted(self.lengths.prompts, reverse=True)[:size]]

    def _worst_rows(self, rows: list[Pair], settings: Optimisation | Dpo) -> list[int]:
        return largest_microbatch([sum(row) for row in rows], settings.batch_size, settings.microbatch_size)

    def _worst_pairs(self, stage: str, settings: Optimisation | Dpo) -> list[Pair]:
        """Chosen responses, then rejected ones."""
        pairs = self.lengths.comparisons[stage]
        rows = self._worst_rows([(0, max(sum(chosen), sum(rejected))) for chosen, rejected in pairs], settings)
        return [side for number in (0, 1) for side in (pairs[row][number] for row in rows)]

    def _worst(self, rows: list[Pair], settings: Optimisation) -> list[Pair]:
        return [rows[row] for row in self._worst_rows(rows, settings)]

    def _sequences(self, pairs: list[Pair], *models: Any) -> Sequences | Packed:
        """As these models take them; real tokens, because how they are packed depends on where they end."""
        with real():
            prompts, responses = ([[0] * pair[side] for pair in pairs] for side in (0, 1))
            sequences = build_sequences(prompts, responses, 0)
            with self._autocast():
                return prepared(sequences, *models)

    def _autocast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._mixed)

    def _moments(self, live: LiveBytes, model: nn.Module) -> int:
        """Make the optimiser's moments, as its first step does."""
        before = live.now
        self._optimizer = make_optimizer({"model": ParameterGroup(model.parameters(), 1e-3, lambda _: 1.0)}, 0.0)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.grad = torch.empty_like(weight)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return live.now - before

    def _trained(
        self,
        live: LiveBytes,
        roles: Roles,
        stage: str,
        name: str,
        model: nn.Module,
        loss: Callable[[Any], Tensor],
        worst: list[Pair],
        *,
        accumulates: bool,
    ) -> Phase:
        """An optimiser step on the microbatch that takes most, with the moments of the steps before."""
        moments = self._moments(live, model)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        gradients = sum(weight.numel() * weight.element_size() for weight in weights)
        if accumulates:  # the gradients of the microbatches before are there
            for weight in weights:
                weight.grad = torch.empty_like(weight)
        live.reset()
        part = self._sequences(worst, *getattr(model, "models", (model,)))
        with self._autocast():
            objective = loss(part)
        objective.backward()  # type: ignore[no-untyped-call]
        return roles.phase(stage, name, moments + gradients, live)

    def _generated(
        self,
        live: LiveBytes,
        roles: Roles,
        policy: Any,
        name: str,
        training: int,
        prompts: list[int],
        *,
        mixed: bool | None = None,
    ) -> Phase:
        """A batch of the longest prompts answered: the prompts' pass, the cache with room for the responses, a draw."""
        size = self.params.measurement.batch_size
        longest = sorted(prompts, reverse=True)[:size]
        tokens = torch.zeros(len(longest), max(longest), dtype=torch.long)
        mask = torch.ones_like(tokens)
        mask[0, 0] = 0  # some row is padded
        response = self.params.language_model.max_response_tokens
        policy.eval()  # as a policy that answers is: while it trains, one that computes activations again has no cache
        live.reset()
        with torch.no_grad(), self._autocast() if mixed is not False else torch.autocast("cpu", enabled=False):
            given = {"attention_mask": mask, "position_ids": mask.cumsum(1) - 1}
            output = policy(input_ids=tokens, **given, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            make_room(cache, response)
            sound = torch.ones((), dtype=torch.bool)
            draw(output.logits[:, -1], torch.zeros(len(longest), dtype=torch.float64), 1.0, sound)
        return roles.phase("alignment" if training else "evaluation", name, training, live)
