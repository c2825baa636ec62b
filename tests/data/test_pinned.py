"""data.dvc pins what the generator writes; the remote in the repository holds it, and the figures of dvc.lock."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from components.digests import digest
from components.worlds.helpdesk.generator import main

ROOT = Path(__file__).parents[2]
REMOTE = ROOT / "infra" / "dvc-remote" / "files" / "md5"
REPIN = "data.dvc is out of date: see infra/dvc-remote/README.md for the two lines that pin the data again"


@pytest.fixture(scope="module")
def pinned() -> str:
    return YAML(typ="safe").load(ROOT / "data.dvc")["outs"][0]["md5"]


def test_the_generators_output_has_the_pinned_hash(tmp_path: Path, pinned: str) -> None:
    main(["--seed", "7", "--out", str(tmp_path / "data")], standalone_mode=False)
    # DVC's hash of a folder, worked out here without our own code: MD5 of the JSON list of its files
    entries = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.name}
        for path in sorted((tmp_path / "data").iterdir())
    ]
    assert hashlib.md5(json.dumps(entries).encode()).hexdigest() + ".dir" == pinned, REPIN
    assert digest(tmp_path / "data") == pinned


def held() -> set[str]:
    return {path.parent.name + path.name for path in REMOTE.rglob("*") if path.is_file()}


def figures(pipeline: str) -> set[str]:
    """Digests of what the committed results of a pipeline file push: metrics and plots."""
    with Repo(str(ROOT)) as repo:
        outs = [out for stage in repo.stage.load_all(pipeline) for out in stage.outs if out.can_push]
        assert outs
        return {out.hash_info.value for out in outs if out.hash_info}


def test_the_remote_holds_the_pinned_data_and_figures_and_nothing_else(pinned: str) -> None:
    listing = REMOTE / pinned[:2] / pinned[2:]
    data = {pinned} | {entry["md5"] for entry in json.loads(listing.read_text())}
    assert data <= held() <= data | figures("dvc.yaml") | figures("compare/dvc.yaml"), REPIN


def test_the_remote_holds_the_figures_of_the_last_commit() -> None:
    assert figures("dvc.yaml") <= held(), "`dvc push`, and commit infra/dvc-remote with dvc.lock"
