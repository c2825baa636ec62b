from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import write_json
from components.errors import ArtifactError
from components.selection.cycles import cycle_rows


def test_one_row_a_cycle_with_the_sft_policy_first(tmp_path: Path) -> None:
    start = {"reward": 0.0, "judge": 0.1, "kl": -1e-7, "gold": 0.5}
    write_json(
        tmp_path / "1" / "metrics.json",
        {"validation": {"reward": 1.0, "judge": 0.8, "kl": 2.25, "gold": 0.7}, "validation_start": start},
    )
    write_json(
        tmp_path / "2" / "metrics.json",
        {"validation": {"reward": 2.0, "judge": 0.6, "kl": 9.0, "gold": 0.4}},
    )

    assert cycle_rows([tmp_path / cycle / "metrics.json" for cycle in ("1", "2")]) == [
        {"cycle": 0, "kl": -1e-7, "sqrt_kl": 0.0, "reward": 0.0, "judge": 0.1, "gold": 0.5},
        {"cycle": 1, "kl": 2.25, "sqrt_kl": 1.5, "reward": 1.0, "judge": 0.8, "gold": 0.7},
        {"cycle": 2, "kl": 9.0, "sqrt_kl": 3.0, "reward": 2.0, "judge": 0.6, "gold": 0.4},
    ]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"validation_start": {"reward": 0.0, "judge": 0.1, "kl": 0.0}}, "reward, judge, kl"),
        (
            {
                "validation": {"reward": 1.0, "judge": "high", "kl": 1.0},
                "validation_start": {"reward": 0.0, "judge": 0.1, "kl": 0.0},
            },
            "none for judge",
        ),
        ([], "reward, judge, kl"),
    ],
)
def test_incomplete_figures_name_the_file_and_what_it_lacks(tmp_path: Path, content: object, found: str) -> None:
    write_json(tmp_path / "1" / "metrics.json", content)

    with pytest.raises(ArtifactError) as error:
        cycle_rows([tmp_path / "1" / "metrics.json"])

    assert str(tmp_path / "1" / "metrics.json") in error.value.where
    assert found in error.value.found
