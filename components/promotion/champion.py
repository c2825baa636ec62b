"""The present champion, measured again: on this candidate's prompts, with this candidate's frozen models."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from components.config import Shared
from components.data.rows import Prompt
from components.digests import digest
from components.measuring.metrics import JUDGE, Metric
from components.measuring.records import Record, prompt_means
from components.place import ModelFolders
from components.seeding import derive_seed
from components.tracking.registry import ModelVersion, fetch_policy


def measure_champion(
    champion: ModelVersion,
    folders: ModelFolders,
    shared: Shared,
    candidate: Sequence[Record],
    rows: Sequence[Prompt],
    metric: Metric,
) -> dict[str, float]:
    """What counts, of the champion on the prompts of the candidate's records: prompt id -> mean over its samples.

    Args:
        rows: these prompts, as they were asked; a record holds of a conversation its transcript alone.
    Raises:
        ArtifactError: the champion's files are gone or damaged.
    """
    recorded = {row.prompt_id: Prompt(row.prompt_id, row.prompt, kind=row.kind) for row in candidate}
    known = {row.id: row for row in rows}
    prompts = [known.get(name, row) for name, row in recorded.items()]
    samples = shared.measurement.test_samples_per_prompt
    with tempfile.TemporaryDirectory() as scratch:
        folder = fetch_policy(champion, Path(scratch))
        if not unlike_tokens(folder, folders.reference):
            from components.measuring.measure import TEST_STREAM, measure_policy

            return prompt_means(measure_policy(folder, folders, shared, prompts, samples, TEST_STREAM), metric.name)
        values = _measure_by_text(folder, folders, shared, prompts * samples, metric)
    return {row.id: fmean(values[number :: len(prompts)]) for number, row in enumerate(prompts)}


def unlike_tokens(folder: Path, reference: Path) -> list[str]:
    """The files by which a stored policy has other tokens than the reference; none where they are the same."""
    return [
        name
        for name in ("tokenizer.json", "proximal.json", "chat_template.jinja")
        if _digest(folder / name) != _digest(reference / name)
    ]


def _digest(path: Path) -> str | None:
    return digest(path) if path.exists() else None


def _measure_by_text(
    folder: Path, folders: ModelFolders, shared: Shared, rows: list[Prompt], metric: Metric
) -> list[float]:
    """Gold or judge of a champion with another tokenizer: it answers with its own, others read the text."""
    from components.engines.answering import Answerer
    from components.measuring.rubric import load_rubric
    from components.models.loading import load_codec, load_scorer
    from components.models.text import TextFormat
    from components.passes.forward import in_microbatches, sequence_scores
    from components.passes.sequences import build_sequences

    asked, prompts = [row.asked for row in rows], [row.prompt for row in rows]
    responses = Answerer(folder).answer(
        asked,
        temperature=shared.measurement.temperature,
        max_response_tokens=TextFormat.load(folder).max_response_tokens,
        seed=derive_seed(shared.seed, "promotion"),
    )
    if metric is not JUDGE and (rubric := load_rubric(shared.data)):
        return [rubric(prompt, response)[metric.name] for prompt, response in zip(prompts, responses, strict=True)]
    judge, codec = load_scorer(folders.judge, shared.language_model), load_codec(folders.reference)
    sequences = build_sequences(codec.encode_prompts(asked), codec.encode_responses(responses), codec.pad_id)
    (scores,) = in_microbatches(lambda part: (sequence_scores(judge, part),), sequences, shared.measurement.batch_size)
    values: list[float] = scores.tolist()
    return values
