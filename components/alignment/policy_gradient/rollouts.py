"""Phase 1: the policy answers prompts, and everything that the updates need is recorded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.config import OnlineDpo, PolicyGradientMethod, Shared
from components.core.checks import require_finite
from components.core.kl import kl_estimate
from components.core.stats import masked_mean, masked_sum
from components.data.rows import Prompt
from components.engines.base import Engine
from components.engines.own import OwnEngine
from components.engines.sampling import draw_uniforms
from components.measuring.measure import FrozenModels
from components.passes.forward import in_microbatches, prepared, response_logprobs
from components.passes.sequences import Sequences, pad_left
from components.scoring.scorer import PartScores, means_of_parts
from components.seeding import generator
from components.training.offload import offloaded


class EncodedPrompt(NamedTuple):
    """A prompt with all its columns, and as the policy reads it."""

    row: Prompt
    tokens: list[int]


class Rollouts(NamedTuple):
    """B responses and what was recorded of them.

    Shapes: scores and ended (B,); old_logprobs, ref_logprobs, values, entropy and sampled_logprobs (B, T).
    Units: logprobs and entropy in nats; scores as the reward model gave them, what is trained in standard deviations.
    sampled_logprobs: those that the engine drew the tokens with.
    parts: of the scores, by name, where the reward model has several.
    """

    sequences: Sequences
    scores: Tensor
    ended: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    sampled_logprobs: Tensor
    parts: Mapping[str, PartScores] = {}


def figures_of(rollouts: Rollouts) -> dict[str, float]:
    """What rollouts tell of the policy that gave them, as curves have it; kl is that of whole responses, by k1."""
    mask = rollouts.sequences.response_mask
    kl = kl_estimate(rollouts.old_logprobs, rollouts.ref_logprobs, "k1")
    return {
        "reward": float(rollouts.scores.mean()),
        **means_of_parts("reward", rollouts.parts),
        "kl": float(masked_sum(kl, mask, dim=1).mean()),
        "entropy": float(masked_mean(rollouts.entropy, mask)),
        "response_tokens": float(mask.sum(dim=1).float().mean()),
        "ended": float(rollouts.ended.float().mean()),
        "sampled_tokens": int(mask.sum()),
    }


def taken(rollouts: Rollouts, rows: Tensor | slice) -> Rollouts:
    """Some of the rollouts, without the padding that only the others needed."""
    sequences = rollouts.sequences.rows(rows)
    width = sequences.response_tokens.shape[1]

    def of(field: Any) -> Any:
        if isinstance(field, Sequences):
            return sequences
        if isinstance(field, Tensor):
            return field[rows] if field.dim() == 1 else field[rows, :width]
        return {name: PartScores(*(column[rows] for column in part)) for name, part in field.items()}

    return Rollouts(*map(of, rollouts))


class Collector:
    """Collects rollouts, iteration by iteration.

    Args:
        sampled_from: gives the policy to sample from; None for the model's own.
        engine: another than our own, which samples them.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: ActorCritic,
        reference: nn.Module,
        frozen: FrozenModels,
        settings: PolicyGradientMethod | OnlineDpo,
        shared: Shared,
        name: str,
        sampled_from: Callable[[], AbstractContextManager[Any]] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._model = model
        self._reference = reference
        self._frozen = frozen
        self._settings = settings
        self._shared = shared
        self._name = name
        policy = sampled_from or (lambda: nullcontext(model.policy))
        self._engine = engine or OwnEngine(
            policy, frozen.codec, temperature=settings.temperature, batch_size=shared.measurement.batch_size
        )

    def sync(self, step: int) -> dict[str, float]:
        """Have the engine sample from the policy as it is now, before an iteration's rollouts; see `Engine.sync`."""
        return self._engine.sync(step)

    @torch.no_grad()
    def roll_out(self, prompts: list[EncodedPrompt], iteration: int, sampling_round: int = 0) -> Rollouts:
        """Answer the prompts and record logprobs, reference logprobs, values and scores.

        Every process works on its share of the prompts; all of them return the whole batch, so that advantages are
        whitened over it and minibatches are cut from it alike everywhere. What reads texts is asked by the first alone.

        Args:
            sampling_round: each of an iteration's has random numbers of its own.
        Raises:
            ConfigError: a part of the reward model fails, or gives no numbers.
            TrainingError: a recorded number is not finite; the rows are named.
            EnvironmentFault: another engine does not answer.
        """
        accelerator = self._accelerator
        shared = self._shared
        codec = self._frozen.codec
        asked = len(prompts)
        prompts = prompts + prompts[-1:] * (-asked % accelerator.num_processes)  # so that each answers equally many
        tokens = [prompt.tokens for prompt in prompts]
        uniforms = draw_uniforms(
            len(prompts),
            shared.language_model.max_response_tokens,
            generator(shared.seed, "ppo", "responses", iteration, *([sampling_round] if sampling_round else [])),
        )
        share = slice(accelerator.process_index, None, accelerator.num_processes)
        with accelerator.autocast():  # as in the update: sampled from, recorded and compared in one precision
            with self._nobody_else_asked():
                sampled = self._engine.sample(tokens, uniforms, share)
            sequences = sampled.sequences.to(accelerator.device)
            columns = in_microbatches(self._recorded, sequences, self._settings.microbatch_size)
        columns = (*columns, sampled.logprobs.to(accelerator.device))
        sequences, columns = _gather(
            accelerator, tokens, sequences, columns, codec.pad_id, shared.language_model.max_response_tokens
        )
        logprobs, entropy, values, ref_logprobs, of_tokens, drawn_with = columns
        answers = self._frozen.text_answers(accelerator, [prompt.row for prompt in prompts], sequences)
        scores, parts = self._frozen.reward_model.total(of_tokens, answers)
        mask = sequences.response_mask
        ended = (codec.is_stop(sequences.response_tokens) & mask).any(dim=1)
        rollouts = Rollouts(sequences, scores, ended, logprobs, ref_logprobs, values, entropy, drawn_with, parts)
        for name in ("old_logprobs", "entropy", "values", "ref_logprobs", "scores"):
            column: Tensor = getattr(rollouts, name)
            where = f"{self._name}, iteration {iteration + 1}, {name}"
            require_finite(where, column, mask if column.dim() == 2 else None)
        return taken(rollouts, slice(asked)) if len(prompts) > asked else rollouts

    def _nobody_else_asked(self) -> AbstractContextManager[None]:
        """While responses are sampled: frozen models lie in main memory if params ask so."""
        frozen = (self._reference, *self._frozen.reward_model.models)
        asked = self._shared.language_model.offload_frozen
        return offloaded(frozen, self._model, self._accelerator.device, asked=asked)

    def _recorded(self, part: Sequences) -> tuple[Tensor, ...]:
        temperature = self._settings.temperature
        scorer = self._frozen.reward_model
        packed = prepared(part, *self._model.models, self._reference, *scorer.models)  # once for all of them
        return (
            *self._model(packed, temperature),
            response_logprobs(self._reference, packed, temperature),
            scorer.of_tokens(packed),
        )


def _gather(
    accelerator: Accelerator,
    prompts: list[list[int]],
    sequences: Sequences,
    recorded: tuple[Tensor, ...],
    pad_id: int,
    width: int,
) -> tuple[Sequences, tuple[Tensor, ...]]:
    """Bring the shares of all processes together, in the order of the prompts, responses padded to `width`."""
    if accelerator.num_processes == 1:
        return sequences, recorded

    def whole(column: Tensor) -> Tensor:
        if column.dim() == 2:
            column = torch.nn.functional.pad(column, (0, width - column.shape[1]))
        parts = accelerator.gather(column).chunk(accelerator.num_processes)
        return torch.stack(parts, dim=1).flatten(0, 1)  # process p holds rows p, p + processes, ...

    prompt_tokens, prompt_mask = (part.to(accelerator.device) for part in pad_left(prompts, pad_id))
    response_mask = whole(sequences.response_mask.long()).bool()
    everything = Sequences(prompt_tokens, prompt_mask, whole(sequences.response_tokens), response_mask)
    trimmed = everything.rows(slice(None))
    longest = trimmed.response_tokens.shape[1]
    columns = tuple(
        column[:, :longest] if column.dim() == 2 else column for column in (whole(part) for part in recorded)
    )
    return trimmed, columns
