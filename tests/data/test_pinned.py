"""data.dvc pins what the generator writes, and the remote in the repository holds it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.digests import digest
from components.helpdesk.generator import main

ROOT = Path(__file__).parents[2]
REMOTE = ROOT / "infra" / "dvc-remote" / "files" / "md5"
REPIN = "data.dvc is out of date: see infra/dvc-remote/README.md for the two lines that pin the data again"


@pytest.fixture(scope="module")
def pinned() -> str:
    return YAML(typ="safe").load(ROOT / "data.dvc")["outs"][0]["md5"]


def test_the_generators_output_has_the_pinned_hash(tmp_path: Path, pinned: str) -> None:
    main(["--seed", "7", "--out", str(tmp_path / "data")])
    # DVC's hash of a folder, worked out here without our own code: MD5 of the JSON list of its files
    entries = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.name}
        for path in sorted((tmp_path / "data").iterdir())
    ]
    assert hashlib.md5(json.dumps(entries).encode()).hexdigest() + ".dir" == pinned, REPIN
    assert digest(tmp_path / "data") == pinned


def test_the_remote_holds_the_pinned_data_and_nothing_else(pinned: str) -> None:
    listing = REMOTE / pinned[:2] / pinned[2:]
    wanted = {pinned} | {entry["md5"] for entry in json.loads(listing.read_text())}
    held = {path.parent.name + path.name for path in REMOTE.rglob("*") if path.is_file()}
    assert held == wanted, REPIN
    for md5 in held:
        content = (REMOTE / md5[:2] / md5[2:]).read_bytes()
        assert hashlib.md5(content).hexdigest() == md5.removesuffix(".dir"), "a corrupt file in the remote"
