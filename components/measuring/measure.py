"""How good a policy is: a record per prompt and sampled response, alike in every cycle, at the end, at promotion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from components.config import Data, LanguageModel, Shared
from components.core.stats import masked_mean, masked_sum
from components.data.rows import Prompt
from components.engines.sampling import draw_uniforms
from components.measuring.metrics import ENDED, ENTROPY, JUDGE, KL, RESPONSE_TOKENS, REWARD
from components.measuring.records import Record, means
from components.measuring.rubric import load_rubric
from components.measuring.shared_out import generate_together, in_microbatches_together
from components.models.adapters import freeze_adapters
from components.models.best_of_n import kl_of_choice
from components.models.loading import load_codec, load_policy
from components.models.text import Codec
from components.passes.forward import response_logprobs, response_logprobs_and_entropy
from components.passes.sequences import Sequences
from components.place import ModelFolders
from components.scoring.columns import Row
from components.scoring.scorer import Answers, Scorer, Scores
from components.seeding import generator
from components.training.accelerator import start_accelerator

# The final comparison and the promotion gate draw the same numbers: their records compare prompt by prompt.
TEST_STREAM = "test"
_PROGRESS = tuple(metric.name for metric in (REWARD, KL, ENTROPY, RESPONSE_TOKENS, ENDED))


@dataclass(frozen=True)
class FrozenModels:
    """What a policy is measured with: the SFT policy, the reward model and the judge, which stay as they are.

    Args:
        load_judge: gives the judge; called once it is needed, for no training looks at it and it would lie in memory.
    """

    reference: nn.Module
    reward_model: Scorer
    load_judge: Callable[[], Scorer]
    codec: Codec
    folders: ModelFolders

    @cached_property
    def judge(self) -> Scorer:
        return self.load_judge()

    def text_answers(self, accelerator: Accelerator, rows: Sequence[Row], sequences: Sequences) -> Answers:
        """What the reward model's parts that read texts say of responses: the first process asks them, for all.

        Args:
            rows: the prompts' rows, one for each of the sequences.
        Raises:
            ConfigError: a part fails, or gives no numbers.
        """
        if not self.reward_model.reads_texts:
            return {}
        answers: list[Answers] = [{}]
        if accelerator.is_main_process:
            answers = [self.reward_model.of_texts(rows, self.codec.decode(sequences.responses()))]
        return broadcast_object_list(answers)[0]  # type: ignore[no-any-return]

    @classmethod
    def load(
        cls,
        folders: ModelFolders,
        device: torch.device,
        config: LanguageModel | None = None,
        data: Data | None = None,
    ) -> FrozenModels:
        """From where they are stored, held as `config` says; the text is the reference's, a rubric that of `data`."""
        reference = load_policy(folders.reference, config).to(device)
        freeze_adapters(reference)
        return cls(
            reference,
            Scorer.load(folders.reward_model, device, config, data),
            lambda: Scorer.load(folders.judge, device, config, data),
            load_codec(folders.reference),
            folders,
        )


def measure_policy(
    policy_folder: Path,
    folders: ModelFolders,
    shared: Shared,
    prompts: Sequence[Prompt],
    samples_per_prompt: int,
    stream: str,
) -> list[Record]:
    """Measure a stored policy, by all processes of the stage; see `measure`."""
    accelerator = start_accelerator()
    policy = load_policy(policy_folder, shared.language_model).to(accelerator.device)
    frozen = FrozenModels.load(folders, accelerator.device, shared.language_model, shared.data)
    return measure(policy, frozen, shared, prompts, samples_per_prompt, stream, together=accelerator)


@torch.no_grad()
def measure(
    policy: Any,
    frozen: FrozenModels,
    shared: Shared,
    prompts: Sequence[Prompt],
    samples_per_prompt: int,
    stream: str,
    *,
    judged: bool = True,
    together: Accelerator | None = None,
) -> list[Record]:
    """Sample responses to every prompt and measure them.

    Args:
        judged: whether the judge scores them too; its number is NaN otherwise.
        together: of processes that all call this, and share out the work; None where one does all.
        stream: names the random numbers. Two policies measured with one stream answer the same prompts with the same
            uniforms, so that their difference has little noise.
    Returns:
        len(prompts) * samples_per_prompt records, a prompt's samples together. Of a policy that chooses among
        responses, kl is at most the mean of these, and entropy that of the policy it chooses from. In the first process
        alone, which asks what reads texts; in the others none.
    Raises:
        ConfigError: the rubric that the params name cannot be used, or a part of a scorer fails.
    """
    codec, settings, rubric = frozen.codec, shared.measurement, load_rubric(shared.data)
    judge = frozen.judge if judged else None
    rows = [(row, sample) for row in prompts for sample in range(samples_per_prompt)]
    uniforms = draw_uniforms(
        len(rows), shared.language_model.max_response_tokens, generator(shared.seed, "measurement", stream)
    )
    sequences = generate_together(
        *(together, policy, codec, codec.encode_prompts([row.asked for row, _ in rows]), uniforms),
        temperature=settings.temperature,
        batch_size=settings.batch_size,
    ).to(next(policy.parameters()).device)

    def numbers_of(part: Sequences) -> tuple[torch.Tensor, ...]:
        logprobs, entropies = response_logprobs_and_entropy(policy, part, settings.temperature)
        ref_logprobs = response_logprobs(frozen.reference, part, settings.temperature)
        rewards = frozen.reward_model.of_tokens(part)
        return (
            rewards,
            judge.of_tokens(part) if judge is not None else torch.full_like(rewards, torch.nan),
            masked_sum(logprobs - ref_logprobs, part.response_mask, dim=1),
            masked_mean(entropies, part.response_mask, dim=1),
        )

    choice = kl_of_choice(policy)
    columns = in_microbatches_together(together, policy, numbers_of, sequences, settings.batch_size)
    if together is not None and not together.is_main_process:
        return []
    tokens = sequences.responses()
    responses = codec.decode(tokens)
    asked = [row for row, _ in rows]
    scores = {
        name: scorer.total(of_tokens, scorer.of_texts(asked, responses)) if scorer else Scores(of_tokens, {})
        for name, scorer, of_tokens in zip(
            (REWARD.name, JUDGE.name), (frozen.reward_model, judge), columns, strict=False
        )
    }
    kls, entropies = (column.tolist() for column in columns[2:])
    totals, parts = {name: found.total.tolist() for name, found in scores.items()}, _parts(scores)
    records = []
    for number, (row, sample) in enumerate(rows):
        record = Record(
            prompt_id=row.id,
            prompt=row.prompt,
            kind=row.kind,
            sample=sample,
            response=responses[number],
            response_tokens=len(tokens[number]),
            ended=tokens[number][-1] in codec.stop_ids,
            reward=totals[REWARD.name][number],
            judge=totals[JUDGE.name][number],
            kl=kls[number] + choice,
            entropy=entropies[number],
            rubric=rubric.of(row, responses[number]) if rubric else {},
            parts={name: values[number] for name, values in parts.items()},
        )
        records.append(record)
    return records


def _parts(scores: Mapping[str, Scores]) -> dict[str, list[float]]:
    """What each part of each scorer gave, by names such as "reward/correct"."""
    return {
        f"{scorer}/{name}": part.values.tolist()
        for scorer, found in scores.items()
        for name, part in found.parts.items()
    }


def progress(
    policy: Any,
    frozen: FrozenModels,
    shared: Shared,
    prompts: Sequence[Prompt],
    stream: str,
    together: Accelerator | None = None,
) -> dict[str, float]:
    """Where a policy in training has come to, by one sampled response a prompt: what every curve row holds.

    What the judge and a rubric say is left out: no training looks at them.

    Args:
        together: see `measure`; the figures are the first process's.
    """
    records = measure(policy, frozen, shared, prompts, 1, stream, judged=False, together=together)
    figures = means(records) if records else {}
    return {name: value for name, value in figures.items() if name in _PROGRESS or name.startswith(f"{REWARD.name}/")}
