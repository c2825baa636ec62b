"""Digests against DVC's own, and against hashes made by hand."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.digests import digest, digest_of_values, tree_digests
from components.errors import ArtifactError


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files whose names sort differently by characters, by parts and by bytes."""
    folder = tmp_path_factory.mktemp("tree")
    names = [
        "file.txt",
        "empty.bin",
        "folder/a.txt",
        "folder/a/b.txt",
        "folder/a-b",
        "folder/B",
        "folder/é ü 日本",
        "folder/.hidden",
        "folder/with space/deep/er/file",
        "folder/same as a.txt",
        "one/only",
    ]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"" if "empty" in name else b"\r\n\x00" * 5000 + b"%d" % (number % 9))
    (folder / "folder" / "empty folder").mkdir()
    return folder


def test_digests_are_dvcs_own(tree: Path) -> None:
    paths = ["file.txt", "empty.bin", "folder", "one"]
    for command in (["init", "--no-scm", "--quiet"], ["add", "--quiet", "--no-commit", *paths]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tree, check=True, capture_output=True)
    for path in paths:
        (out,) = YAML(typ="safe").load(tree / f"{path}.dvc")["outs"]
        assert digest(tree / path) == out["md5"], path


def test_a_file_is_its_md5_and_a_folder_its_listings(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"hello")
    (tmp_path / "a").write_bytes(b"")
    hello, nothing = "5d41402abc4b2a76b9719d911017c592", "d41d8cd98f00b204e9800998ecf8427e"
    assert digest(tmp_path / "b") == hello
    listing = f'[{{"md5": "{nothing}", "relpath": "a"}}, {{"md5": "{hello}", "relpath": "b"}}]'
    assert digest(tmp_path) == hashlib.md5(listing.encode()).hexdigest() + ".dir"


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere"):
        digest(tmp_path / "nowhere")


def test_values_have_a_digest_of_their_content_not_their_order() -> None:
    assert digest_of_values({"a": 1, "b": [1.5, None]}) == digest_of_values({"b": [1.5, None], "a": 1})
    assert digest_of_values({"a": 1}) == hashlib.sha256(b'{"a": 1}').hexdigest()
    assert len({digest_of_values(value) for value in ({"a": 1}, {"a": 1.0}, {"a": "1"}, {"b": 1}, [1])}) == 5


def test_tree_digests_are_those_of_each_part(tmp_path: Path) -> None:
    for name in ("a/b/z.txt", "a/b-c.txt", "a/x/y/w.txt", "a/é.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = tree_digests(tmp_path / "a")
    parts = ["a", "a/b", "a/b-c.txt", "a/b/z.txt", "a/x", "a/x/y", "a/x/y/w.txt", "a/é.txt"]
    assert found == {tmp_path / part: digest(tmp_path / part) for part in parts}
