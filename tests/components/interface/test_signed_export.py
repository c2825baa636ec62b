"""An exported policy is signed and verified by model-signing's own command, with a key of one's own (decision 31)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.interface.export import export
from components.models.loading import load_policy, save_policy
from components.models.text import Codec, TextFormat


def model_signing(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """Those that decision 31 makes with OpenSSL: P-256, private and public."""
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def test_an_export_that_was_signed_is_verified_and_no_other(
    word_policy: Any, word_codec: Codec, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    codec = Codec(word_codec.tokenizer, TextFormat("{prompt}", 20, 12, stop_ids=(5,)))
    save_policy(word_policy, codec, tmp_path / "policy")
    folder = tmp_path / "export"
    export(tmp_path / "policy", folder, None)
    private, public = keys
    signature = folder / "model.sig"
    verify = ("verify", "key", folder, "--public_key", public, "--signature", signature)

    signed = model_signing("sign", "key", folder, "--private_key", private, "--signature", signature)
    assert signed.returncode == 0, signed.stderr
    verified = model_signing(*verify)
    assert verified.returncode == 0, verified.stderr
    load_policy(folder)  # the signature is in nobody's way

    for name in ("model.safetensors", "README.md"):  # the weights, and what the card says of them
        file = folder / name
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert model_signing(*verify).returncode != 0
        file.write_bytes(content)
    (folder / "modeling.py").write_text("import os\n")
    assert model_signing(*verify).returncode != 0
    (folder / "modeling.py").unlink()
    assert model_signing(*verify).returncode == 0
