"""The splits that a data set of the library `datasets` has become ours, and hold out what they hold out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.config import DataValidation
from components.data_validation.dataset_splits import our_split, read_datasets_folder
from components.data_validation.gathering import by_role
from components.data_validation.validate import validate
from components.interface import hub

Row = dict[str, Any]
Limits = Callable[..., DataValidation]


def pairs(first: int, last: int) -> list[Row]:
    return [
        {"prompt": f"ask{n} about{n} it{n}", "chosen": f"good{n} for{n} all{n}", "rejected": f"bad{n} for{n} us{n}"}
        for n in range(first, last)
    ]


def saved(folder: Path, **splits: list[Row]) -> Path:
    from datasets import Dataset, DatasetDict

    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("train", "train"),
        ("train_prefs", "train"),
        ("train[:10%]", "train"),
        ("training", "train"),
        ("validation", "validation"),
        ("val", "validation"),
        ("dev-small", "validation"),
        ("test", "test"),
        ("test_prefs", "test"),
        ("TEST", "test"),
        ("testament", None),
        ("trainer", None),
        ("devices", None),
        ("latest", None),
        ("default", None),
    ],
)
def test_names_count_by_how_they_begin(name: str, ours: str | None) -> None:
    assert our_split(name) == ours


def test_one_split_alone_says_nothing(tmp_path: Path) -> None:
    (train,) = read_datasets_folder(saved(tmp_path / "one", train=pairs(0, 2)), "one")
    assert "split" not in train.rows[0]
    default, more = read_datasets_folder(saved(tmp_path / "two", train=pairs(0, 2), default=pairs(2, 4)), "two")
    assert "split" not in default.rows[0] | more.rows[0]


def test_rows_that_name_a_split_keep_it(tmp_path: Path) -> None:
    own = [row | {"split": "mine"} for row in pairs(2, 4)]
    _, test = read_datasets_folder(saved(tmp_path / "x", train=pairs(0, 2), test=own), "x")
    assert [row["split"] for row in test.rows] == ["mine", "mine"]


def test_splits_of_a_data_set_hold_out_and_the_absent_one_is_drawn(tmp_path: Path, limits: Limits) -> None:
    """Train and test as most have: validation is drawn from train. One prompt is in both, and is held out."""
    both = pairs(0, 1)[0] | {"chosen": "another one for it"}
    folder = saved(
        tmp_path / "prefs", train_prefs=[*pairs(30, 150), both], test_prefs=pairs(0, 30), extra=pairs(150, 160)
    )
    raw = by_role(read_datasets_folder(folder, "prefs"), {})
    found = validate(raw, limits(), 1)
    prompts = {
        split: {row["prompt"] for row in found.parts[f"prompts_{split}"]} for split in ("train", "validation", "test")
    }
    assert prompts["test"] == {row["prompt"] for row in pairs(0, 30)}
    assert prompts["validation"] and prompts["validation"] < {row["prompt"] for row in pairs(30, 160)}
    assert sum(map(len, prompts.values())) == 160
    assert {row["prompt"] for row in found.kept["comparisons"]} == prompts["train"]
    reasons = {(row.content["prompt"], str(row.faults[0])) for row in found.rejected if isinstance(row.content, dict)}
    assert reasons == {
        *((row["prompt"], "split is validation or test") for row in pairs(0, 30)),
        *((prompt, "prompt was drawn for validation or test") for prompt in prompts["validation"] | {both["prompt"]}),
    }
    assert all(row.withheld for row in found.rejected)


def test_dialogues_that_begin_alike_are_held_out_together(tmp_path: Path) -> None:
    def dialogue(n: int, further: str) -> Row:
        said = ("user", f"first {n}"), ("assistant", "yes"), ("user", further)
        asked = [{"role": role, "content": content} for role, content in said]
        return {"prompt": asked, "chosen": "good", "rejected": "bad"}

    folder = saved(tmp_path / "x", train=[dialogue(1, "a"), dialogue(2, "b")], test=[dialogue(1, "c")])
    prompts = by_role(read_datasets_folder(folder, "x"), {})["prompts"]
    assert [row["split"] for row in prompts.rows] == ["test", "train", "test"]


def test_demonstrations_of_test_do_not_train_where_prompts_come_from_comparisons(
    tmp_path: Path, limits: Limits
) -> None:
    folder = saved(tmp_path / "a", train=pairs(0, 60), validation=pairs(60, 80), test=pairs(80, 100))
    told = [{"prompt": f"tell{n} me{n} more{n}", "response": f"so{n} it{n} is{n}"} for n in range(12)]
    more = saved(tmp_path / "b", train_sft=told[:10], test_sft=told[10:])
    raw = by_role([*read_datasets_folder(folder, "a"), *read_datasets_folder(more, "b")], {})
    found = validate(raw, limits(), 1)
    assert len(found.parts["prompts_validation"]) == len(found.parts["prompts_test"]) == 20  # none was drawn
    assert [row["prompt"] for row in found.parts["demonstrations"]] == [row["prompt"] for row in told[:10]]


def test_a_hub_name_has_its_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the library's own loader, of files here in place of the net's."""
    import datasets

    real = datasets.load_dataset
    for name, rows in {"train_prefs": pairs(0, 3), "test_prefs": pairs(3, 5)}.items():
        datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / f"{name}.parquet"))
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("train_prefs", "test_prefs")}

    def load(name: str, config: str | None, revision: str, split: list[str] | None) -> Any:
        assert (name, config, revision) == ("owner/prefs", None, "abc")
        return real("parquet", data_files=files, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    for splits in ((), ("train_prefs", "test_prefs")):
        train, test = hub.read_from_hub("owner/prefs", "abc", splits)
        assert [train.sources[0].file, test.sources[0].file] == ["prefs-train_prefs", "prefs-test_prefs"]
        assert train.sources[0].kind == "hub, abc"
        assert [row["split"] for row in train.rows + test.rows] == ["train"] * 3 + ["test"] * 2
    (alone,) = hub.read_from_hub("owner/prefs", "abc", ["train_prefs"])
    assert "split" not in alone.rows[0]
