"""The present champion, measured again: on this candidate's prompts, with this candidate's frozen models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from components.config import Shared
from components.data.rows import Prompt
from components.digests import digest
from components.errors import ArtifactError
from components.measuring.metrics import JUDGE, Metric
from components.measuring.records import Record, prompt_means
from components.place import ModelFolders
from components.seeding import derive_seed
from components.tracking.registry import ModelVersion, fetch_policy


@contextmanager
def fetched(champion: ModelVersion) -> Iterator[Path]:
    """The champion's policy in a folder of its own, for a while.

    Raises:
        ArtifactError: its files are gone.
    """
    with tempfile.TemporaryDirectory() as scratch:
        yield fetch_policy(champion, Path(scratch))


def measure_champion(
    folder: Path,
    folders: ModelFolders,
    shared: Shared,
    candidate: Sequence[Record],
    rows: Sequence[Prompt],
    metric: Metric,
) -> dict[str, float]:
    """What counts, of the champion on the prompts of the candidate's records: prompt id -> mean over its samples.

    Args:
        folder: of its policy.
        rows: the prompts with all their columns.

    Raises:
        ArtifactError: the champion's files are damaged.
    """
    asked = {record.prompt_id for record in candidate}
    prompts = [row for row in rows if row.id in asked]
    if len(prompts) != len(asked):
        raise ArtifactError(
            "prompts that the candidate was measured on are not there any more",
            where="artifacts/data_validation/clean/prompts_test.jsonl",
            expected=f"{len(asked)} prompts",
            found=f"{len(prompts)} of them",
            do="run `dvc repro`, which measures it again",
        )
    samples = shared.measurement.test_samples_per_prompt
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
    import torch

    from components.engines.answering import Answerer
    from components.measuring.rubric import load_rubric
    from components.models.loading import load_codec
    from components.models.text import TextFormat
    from components.passes.sequences import build_sequences
    from components.scoring.scorer import Scorer

    asked = [row.asked for row in rows]
    responses = Answerer(folder).answer(
        asked,
        temperature=shared.measurement.temperature,
        max_response_tokens=TextFormat.load(folder).max_response_tokens,
        seed=derive_seed(shared.seed, "promotion"),
    )
    if metric is not JUDGE and (rubric := load_rubric(shared.data)):
        return [rubric.of(row, response)[metric.name] for row, response in zip(rows, responses, strict=True)]
    judge = Scorer.load(folders.judge, torch.device("cpu"), shared.language_model, shared.data)
    codec = load_codec(folders.reference)
    sequences = build_sequences(codec.encode_prompts(asked), codec.encode_responses(responses), codec.pad_id)
    scores = judge.scores(rows, sequences, codec, shared.measurement.batch_size, responses)
    values: list[float] = scores.total.tolist()
    return values
