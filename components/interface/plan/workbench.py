"""What every simulated phase needs: its models and sequences, an optimiser step, answers being generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from components.config import Dpo, Optimisation, Params, QLearning
from components.engines.cache import make_room
from components.engines.sampling import draw
from components.interface.plan.lengths import Lengths, Pair, largest_microbatch
from components.interface.plan.live_bytes import LiveBytes, real
from components.interface.plan.models import Models
from components.interface.plan.roles import Phase, Roles
from components.passes.forward import prepared
from components.passes.sequences import Packed, Sequences, build_sequences
from components.training.schedule import ParameterGroup, make_optimizer


class Workbench:
    """Runs passes of the models of params on shapes.

    Args:
        shape: the config of the policy's architecture.
        mixed: whether passes multiply in bfloat16 (Accelerate's mixed_precision).
    """

    def __init__(self, params: Params, shape: Any, lengths: Lengths, *, mixed: bool) -> None:
        self.params = params
        self.shape = shape
        self.lengths = lengths
        self._mixed = mixed

    def _begin(self, live: LiveBytes) -> tuple[Models, Roles]:
        settings = self.params.language_model
        return Models(settings, self.shape), Roles(live, shared=settings.adapter is not None)

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

    def _worst_rows(self, rows: list[Pair], settings: Optimisation | Dpo | QLearning) -> list[int]:
        return largest_microbatch([sum(row) for row in rows], settings.batch_size, settings.microbatch_size)

    def _worst_pairs(self, stage: str, settings: Optimisation | Dpo | QLearning) -> list[Pair]:
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
        stage: str | None = None,
    ) -> Phase:
        """A batch of the longest prompts answered: the prompts' pass, the cache with room for the responses, a draw."""
        size = self.params.measurement.batch_size
        longest = sorted(prompts, reverse=True)[:size]
        tokens = torch.zeros(len(longest), max(longest), dtype=torch.long)
        mask = torch.ones_like(tokens)
        mask[0, 0] = 0  # some row is padded
        response = self.params.language_model.max_response_tokens
        policy.eval()  # while it trains, one that computes activations again keeps no cache
        live.reset()
        with torch.no_grad(), self._autocast() if mixed is not False else torch.autocast("cpu", enabled=False):
            given = {"attention_mask": mask, "position_ids": mask.cumsum(1) - 1}
            output = policy(input_ids=tokens, **given, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            make_room(cache, response)
            sound = torch.ones((), dtype=torch.bool)
            draw(output.logits[:, -1], torch.zeros(len(longest), dtype=torch.float64), 1.0, sound)
        return roles.phase(stage or ("alignment" if training else "evaluation"), name, training, live)
