"""The model card: what it says of a registered version, held against what is known by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from promotion_workspace import params_named, put_candidate
from ruamel.yaml import YAML

from components.digests import digest
from components.place import Place
from components.promotion.card import card_of_folder
from components.stages import perform
from components.tracking import start_pipeline_run
from components.tracking.recorder import RecordedRun
from components.tracking.registry import fetch_policy, find_version, set_tags
from components.tracking.runs import PARENT_VARIABLE, stage_run


def front_matter(card: str) -> dict[str, object]:
    start, matter, _ = card.split("---\n", 2)
    assert start == ""
    found: dict[str, object] = YAML(typ="safe").load(matter)
    return found


def test_a_version_carries_its_card_and_an_export_of_it_another(
    workspace: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.cli import commands

    params = params_named("carded")
    Path("data").mkdir()
    Path("data/rows.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    Path("bases/small").mkdir(parents=True)
    Path("bases/small/README.md").write_text("---\nlicense: apache-2.0\n---\n# Small\n")
    clean = Place().clean
    with stage_run("data_validation", params, [Path("data")]) as run:
        run.outputs([clean])
    with stage_run("sft", params, [clean]) as run:
        run.tags({"base_model": "bases/small 0123.dir"})
        run.outputs([Place().sft])
    assert isinstance(run, RecordedRun)
    put_candidate(models, 1, gold=0.75)
    monkeypatch.setenv(PARENT_VARIABLE, start_pipeline_run(params, "", Path()))
    before = digest(Place().selection)
    perform("promotion", params, Place())
    assert digest(Place().selection) == before  # what DVC tracks has no card

    version = find_version("carded@champion")
    policy = fetch_policy(version, tmp_path / "fetched")
    card = (policy.parents[1] / "README.md").read_text()
    assert not (policy / "README.md").exists()
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "bases/small",
        "license": "apache-2.0",
        "tags": ["proximal", "rlhf", "ppo"],
    }
    for told in (
        "# carded, version 1",
        "Promoted against the SFT policy.",
        "| Gold | 0.250 | 0.750 | 0.500 [0.500, 0.500] |",
        "KL to the SFT policy: 2.0000 nats per sequence.",
        "| Base | bases/small 0123.dir |",
        f"| SFT policy | `{digest(Place().sft / 'policy')}` |",
        f"| Reward model | `{digest(Place().reward_model / 'model')}` |",
        f"| Judge | `{digest(Place().judge / 'model')}` |",
        f"| data/rows.jsonl | 2 rows, `{digest(Path('data/rows.jsonl'))}` |",
        f"Digest of the policy: `{digest(Place().selection / 'policy')}`",
        f"| Method | ppo, cycle 2, seed {params.seed} |",
        "## Limits",
    ):
        assert told in card, told

    set_tags(version, {"rolled_back": "by ada: it is rude"})  # later: the export knows
    monkeypatch.setattr("flows.looking.require_repository", lambda: workspace)
    told = CliRunner().invoke(commands, ["export", "carded@1", "--to", str(tmp_path / "plain")])
    assert told.exit_code == 0, told.output
    exported = (tmp_path / "plain" / "README.md").read_text()
    assert "Rolled back: by ada: it is rude." in exported and "Rolled back" not in card
    assert exported.replace("Rolled back: by ada: it is rude.\n", "") == card


def test_a_folder_alone_has_no_verdict() -> None:
    card = card_of_folder("0011.dir")
    assert front_matter(card)["tags"] == ["proximal", "rlhf"]
    assert "`0011.dir`" in card and "No verdict" in card and "## Figures" not in card
