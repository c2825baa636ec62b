"""Real human preferences, not part of the project: skipped where they are absent. No text is shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.config import DataValidation
from components.data_validation.page import page_of
from components.data_validation.reading import RawFile, parse_lines, read_tolerantly
from components.data_validation.report import report_of
from components.data_validation.schemas import FileName
from components.data_validation.validate import validate

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"
Limits = Callable[..., DataValidation]

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the human data is not here")


@pytest.mark.parametrize(
    ("name", "rows", "rejected", "longer_wins"),
    [
        # 77 % of UKP, by DATA_SOURCES.md; counted apart: 44 % of the first 2,000 rows of HH
        ("pref_ukp_train", 8671, 162, (0.75, 0.79)),
        ("pref_hh_train", 2000, 0, (0.42, 0.46)),
    ],
)
def test_plain_comparisons_are_validated(
    limits: Limits, name: str, rows: int, rejected: int, longer_wins: tuple[float, float]
) -> None:
    roomy = limits(max_prompt_characters=20_000, max_response_characters=20_000, max_reject_fraction=0.05)
    lines = (DATA / f"{name}.jsonl").read_bytes().split(b"\n")
    comparisons = parse_lines(b"\n".join(lines[:rows]), f"data/{name}.jsonl")
    texts = sorted({row["prompt"] for row in comparisons.rows})
    prompts = [{"id": str(i), "prompt": text} for i, text in enumerate(texts)]
    raw: dict[FileName, RawFile] = {
        "prompts": parse_lines("\n".join(map(json.dumps, prompts)).encode(), "data/prompts.jsonl"),
        "demonstrations": read_tolerantly(DATA / "sft_tinystories.jsonl"),
        "comparisons": comparisons,
    }
    start = time.process_time()
    validated = validate(raw, roomy, 1)
    report = report_of(raw, validated)
    page_of(raw, validated, report)
    assert time.process_time() - start < 10
    assert report["comparisons"]["rejected"] == rejected
    assert longer_wins[0] < report["comparisons"]["longer_wins"] < longer_wins[1]
    assert "annotator_agreement" not in report["comparisons"]
    # Each prompt is on one side of every split, so its comparisons are withheld or kept together.
    kept = {row["prompt"] for row in validated.kept["comparisons"]}
    shared = len(kept & {row["prompt"] for row in validated.parts["prompts_test"]})
    assert shared == 0
