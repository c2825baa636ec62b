"""What is out of people's sight is read as before, in the store of today and in one that kept all of it in sight."""

from __future__ import annotations

from pathlib import Path

from recorded_runs import run_of

from components.config import Params
from components.digests import digest
from components.tracking import stage_run
from components.tracking import store as tracking_store
from components.tracking.history import find_maker, get_run
from components.tracking.tag_names import all_plain, packed


def test_people_see_few_tags_of_a_run(workspace: Path, params: Params) -> None:
    Path("rows").write_text("1")
    with stage_run("alignment", params, [Path("rows")], cycle=2) as run:
        run.outputs([Path("rows")])
    seen = {name for name in run_of(run).data.tags if not name.startswith("mlflow.")}
    assert seen == {"stage", "cycle", "method", "seed", "git_commit", "git_dirty"}
    record = get_run(run.run_id)
    assert record is not None and record.inputs == {"rows": digest(Path("rows"))}


def test_a_run_that_kept_its_digests_in_sight_is_still_found(workspace: Path, params: Params) -> None:
    with stage_run("sft", params) as run:
        pass
    tracking_store.client().set_tag(run.run_id, "out:artifacts/old", "0123")
    maker = find_maker({"artifacts/old": "0123"})
    assert maker is not None and maker.run_id == run.run_id


def test_a_versions_tags_come_back_whole() -> None:
    tags = {"decision": "promoted", "gain": "0.1", "policy_digest": "ab.dir", "in:data": "cd", "decisions_on:ef": "2"}
    kept = packed(tags)
    assert set(kept) == {"decision", "gain", "digests"}
    assert all_plain(kept) == tags
    assert all_plain(tags) == tags
