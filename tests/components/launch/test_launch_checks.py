"""What ranks check of each other, and weights in shards: by real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launched import ROOT, TWO, ChangeParams

from components.artifacts import read_json
from components.place import Place
from components.training.fingerprint import fingerprint

# Read by every Python that starts with its folder on the path.
NUDGED = """
import os
if os.environ.get("RANK") == "1":
    import torch
    from components.alignment.{room}.update import Updater
    real = Updater.update

    def nudged(updater, *arguments):
        figures = real(updater, *arguments)
        with torch.no_grad():
            weight = next(updater.{model}.parameters())
            weight[0, 0] = torch.nextafter(weight[0, 0], weight[0, 0] + 1)
        return figures

    Updater.update = nudged
"""
PRINTS_SHARDED = """
import json, sys
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor, Shard
from components.training.fingerprint import fingerprint

mesh = init_device_mesh("cpu", (2,))
whole = {"uneven": torch.linspace(-1, 1, 15).reshape(5, 3), "half": torch.arange(8.0).bfloat16()}
found = fingerprint({name: distribute_tensor(tensor, mesh, [Shard(0)]) for name, tensor in whole.items()})
found |= fingerprint({"plain": torch.ones(3)})
open(f"{sys.argv[1]}/{torch.distributed.get_rank()}", "w").write(json.dumps(found))
"""


def start_two(world: Path, tmp_path: Path, plant: str, *arguments: str) -> tuple[int, str]:
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(plant)
    ended = subprocess.run(
        [sys.executable, "-m", "components.launch", *arguments],
        env={**os.environ, "PYTHONPATH": f"{planted}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_ranks_that_hold_the_same_weights_say_so(world: Path, tmp_path: Path, change_params: ChangeParams) -> None:
    change_params(compute=TWO, ppo={"iterations_per_cycle": 2})
    status, errors = start_two(world, tmp_path, "", "alignment", "--cycle", "1")
    assert status == 0, errors
    rows = {row["name"]: row for row in read_json(Place().alignment / "1" / "checks.json")}
    assert list(rows) == ["sampler", "sampler_largest", "reference", "ratio", "processes"]
    assert (rows["processes"]["largest"], rows["processes"]["times"]) == (0, 2)
    assert errors.count("weights in which processes differ 0 of ") == 1  # one of them speaks, and once


@pytest.mark.parametrize(
    ("method", "room", "model"), [("ppo", "policy_gradient", "_model"), ("dpo", "preferences", "_policy")]
)
def test_a_rank_whose_weights_went_astray(
    world: Path, tmp_path: Path, change_params: ChangeParams, method: str, room: str, model: str
) -> None:
    """One number of one rank by its last bit, after its first update."""
    change_params(compute=TWO, method=method)
    plant = NUDGED.format(room=room, model=model)
    status, errors = start_two(world, tmp_path, plant, "alignment", "--cycle", "1")
    assert status == 2, errors
    said = errors[errors.index("error: ") :]
    assert said.startswith("error: the processes do not train one model")
    assert f"{method}, iteration 1\n" in said and "weights in which processes differ: at most 0 of " in said
    assert "1 of " in said and "rank(s) 1 against rank 0: policy/model.embed_tokens.weight\n" in said
    assert not (Place().alignment / "1").exists()


def test_weights_in_shards_have_the_fingerprint_of_whole_ones(tmp_path: Path) -> None:
    """By hand: bits of 1.0 in float32 are 127 << 23."""
    (tmp_path / "worker.py").write_text(PRINTS_SHARDED)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    subprocess.run([sys.executable, *launcher, str(tmp_path / "worker.py"), str(tmp_path)], cwd=ROOT, check=True,
                   env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300)  # fmt: skip
    found = [json.loads((tmp_path / rank).read_text()) for rank in "01"]
    uneven, half = torch.linspace(-1, 1, 15).numpy(), torch.arange(8.0).bfloat16().view(torch.int16).numpy()
    assert found[0] == found[1]
    assert found[0] == {
        "uneven": sum(uneven.view("int32").tolist()),
        "half": sum(half.tolist()),
        "plain": 3 * (127 << 23),
    }


def test_a_fingerprint_sees_the_last_bit_and_nothing_else() -> None:
    weight = torch.linspace(-1, 1, 6).reshape(2, 3)
    other = weight.clone()
    other[1, 2] = torch.nextafter(other[1, 2], torch.tensor(2.0))
    assert fingerprint({"a": weight, "b": other}) == {"a": fingerprint({"a": weight})["a"],
                                                       "b": fingerprint({"a": weight})["a"] + 1}  # fmt: skip
    assert fingerprint({"a": weight.T}) == fingerprint({"a": weight})
    assert fingerprint({}) == {}
