#!/usr/bin/env bash
# Makes .venv-deepspeed: DeepSpeed beside the packages of .venv, which it sees as they are, in an environment of its own
# (where it is installed, Accelerate and transformers import it, seconds at every start). Silent where all is there.
# On first use DeepSpeed compiles an extension for exchanges on CPUs, which takes a C++ compiler and half a minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's/^deepspeed==//p' constraints.txt) home=.venv-deepspeed
[[ -e $home/.installed-$version ]] && exit 0

echo "installing DeepSpeed into $home: about a minute and 30 MB" >&2
.venv/bin/python -m venv --without-pip "$home"
packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
own=$("$home/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "import site; site.addsitedir('$packages')" >"$own/shared.pth"
# Built without its extensions; what it needs that .venv lacks is named, for pip would take no notice of .venv's.
export DS_BUILD_OPS=0
pip() { .venv/bin/pip --python "$home/bin/python" --disable-pip-version-check install --quiet -c constraints.txt --no-deps "$@"; }
pip einops hjson msgpack ninja py-cpuinfo
pip --no-build-isolation deepspeed
"$home/bin/python" -c 'import importlib.metadata as m; print("DeepSpeed", m.version("deepspeed"))' >&2
touch "$home/.installed-$version"
