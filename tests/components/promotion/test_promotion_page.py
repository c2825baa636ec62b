"""The page that promotion leaves: the evaluation's, the decision on top, and what ties it to its run."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from promotion_workspace import params_named, put_candidate

from components.config import Params, Promotion
from components.errors import ArtifactError
from components.place import Place
from components.promotion.page import conditions, differing
from components.stages import perform
from components.tracking import start_pipeline_run
from components.tracking import store as tracking_store
from components.tracking.registry import find_version, version_at
from components.tracking.runs import PARENT_VARIABLE

LIMITS = Promotion(
    registered_model="m",
    min_prompts=2,
    max_kl_nats_per_sequence=6.0,
    max_length_ratio=1.5,
    allow_weak_judge=False,
    suites={},
)
TAGS = {"opponent": "the SFT policy", "candidate_gold": "0.7", "gain": "0.2110", "gain_low": "0.1780"} | {
    "gain_high": "0.2440", "gain_low_asked": "0.1753", "kl": "1.7204", "length_ratio": "1.1591"
}  # fmt: skip


def page_text() -> str:
    page = (Place().promotion / "report.html").read_text(encoding="utf-8")
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def promote(params: Params, monkeypatch: pytest.MonkeyPatch) -> str:
    """In a pipeline's run of its own, whose id it gives."""
    parent = start_pipeline_run(params, "", Path())
    monkeypatch.setenv(PARENT_VARIABLE, parent)
    perform("promotion", params, Place())
    return parent


def artifacts_of(run_id: str) -> set[str]:
    return {found.path for found in tracking_store.client().list_artifacts(run_id)}


def test_the_page_tells_the_decision_its_run_and_what_differs_from_the_champion(
    workspace: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = params_named("paged")
    put_candidate(models, 1, gold=0.75)
    parent = promote(first, monkeypatch)
    text = page_text()
    assert text.startswith("Gold rose promotion champion Promoted: paged version 1 is the champion")
    assert text.endswith("Figures")
    assert "Held against the SFT policy" in text and "Try 1 on these test prompts, decided at 97%" in text
    assert "+0.500 [0.500, 0.500]" in text and "2.00 at most 6 ✓ yes" in text and "1.00 at most 1.5 ✓ yes" in text
    champion = find_version("paged@champion")
    for told in (parent, champion.run_id, champion.tags["git_commit"], champion.tags["params_sha256"], " UTC"):
        assert told in text
    assert f"/#/experiments/{tracking_store.experiment_id()}/runs/{champion.run_id}" in text
    assert str(workspace) not in (Place().promotion / "report.html").read_text()
    assert "Params that differ" not in text  # there was no champion
    assert "report.html" in artifacts_of(parent) & artifacts_of(champion.run_id)

    # The same policy again: nothing is decided, the page is written all the same.
    (Place().promotion / "report.html").unlink()
    promote(first, monkeypatch)
    assert "Already champion: paged version 1 is this very policy" in page_text()
    assert "Nothing was decided anew" in page_text() and "+0.500 [0.500, 0.500]" in page_text()

    second = params_named("paged", max_length_ratio=1.25).model_copy(update={"seed": 7})
    put_candidate(models, 0, gold=-1.0, kl=7.0)
    promote(second, monkeypatch)
    text = page_text()
    assert "refused Refused: paged version 2 stays a candidate" in text
    assert "KL to the SFT policy is 7.00 nats per sequence, above 6" in text and "7.00 at most 6 ✗ no" in text
    assert "Params that differ from the champion's, paged version 1" in text
    assert "promotion.max_length_ratio 1.5 1.25" in text and "seed 1 7" in text
    assert "ppo.gamma" not in text

    promote(second, monkeypatch)
    assert "Already refused: paged version 2 stays a candidate" in page_text()


def test_what_was_promoted_by_hand_has_no_params_to_compare_with(workspace: Path, models: Path) -> None:
    put_candidate(models, 1, gold=0.75)
    perform("promotion", params_named("by_hand"), Place())
    put_candidate(models, 0, gold=-1.0)
    perform("promotion", params_named("by_hand"), Place())
    assert "is not in this tracking store, so that its params are not known" in page_text()


def test_another_page_does_not_make_a_decision_anew(
    workspace: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_candidate(models, 1, gold=-1.0)
    perform("promotion", params_named("steady"), Place())
    page = Place().evaluation / "report.html"
    page.write_text(page.read_text() + "<p>other words</p>")
    perform("promotion", params_named("steady"), Place())
    assert "already refused: steady version 1" in capsys.readouterr().out
    assert page_text().endswith("other words")


def test_a_page_of_other_code_is_named_before_anything_is_decided(workspace: Path, models: Path) -> None:
    put_candidate(models, 1, gold=0.75)
    (Place().evaluation / "report.html").write_text("<h1>old</h1>")
    with pytest.raises(ArtifactError, match="a page cannot be added to"):
        perform("promotion", params_named("old_page"), Place())
    assert version_at("old_page", "candidate") is None


def test_conditions_are_met_or_not_by_the_figures_of_the_version() -> None:
    gain, kl, length = conditions(TAGS, LIMITS)
    assert (gain.found, gain.met) == (
        "+0.211 [0.178, 0.244]; the lower bound that this try asks for is +0.175", True
    )  # fmt: skip
    assert (kl.found, kl.limit, kl.met) == ("1.72", "at most 6", True)
    assert (length.found, length.limit, length.met) == ("1.16", "at most 1.5", True)
    unsure, far, _ = conditions(TAGS | {"gain_low_asked": "-0.0010", "kl": "6.0100"}, LIMITS)
    assert (unsure.met, far.met) == (False, False)
    assert [condition.met for condition in conditions(TAGS | {"gain": "not measured"}, LIMITS)] == [None] * 3


def test_params_differ_in_value_or_in_being_there() -> None:
    assert differing({"a": "1", "b": "2", "old": "x"}, {"new": "y", "a": "1", "b": "3"}) == [
        ("new", "none", "y"), ("b", "2", "3"), ("old", "x", "none")
    ]  # fmt: skip
    assert differing({}, {"a": "1"}) is None
