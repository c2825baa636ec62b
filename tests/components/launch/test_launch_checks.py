"""What ranks check of each other, and weights in shards: by real processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launched import FAULTY, ROOT, TWO, ChangeParams, run_planted

from components.artifacts import read_json
from components.digests import digest
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


def test_ranks_that_hold_the_same_weights_say_so(world: Path, tmp_path: Path, change_params: ChangeParams) -> None:
    change_params(compute=TWO, ppo={"iterations_per_cycle": 2})
    status, errors = run_planted(world, tmp_path, "", "alignment", "--cycle", "1")
    assert status == 0, errors
    rows = {row["name"]: row for row in read_json(Place().alignment / "1" / "checks.json")}
    assert list(rows) == ["sampler", "sampler_largest", "reference", "ratio", "processes"]
    assert (rows["processes"]["largest"], rows["processes"]["times"]) == (0, 2)
    assert errors.count("weights in which processes differ 0 of ") == 1  # one of them speaks, and once
    # A device of a rank that is full, and a rank that is killed, in the second iteration: the first one is kept.
    unbroken = digest(Place().alignment)
    shutil.rmtree(Place().alignment)
    for fault, said in (("memory", "out of memory\n"), ("kill", "killed by SIGKILL\n")):
        status, errors = run_planted(
            world, tmp_path, FAULTY.format(fault=fault, iteration=1), "alignment", "--cycle", "1"
        )
        assert status == 2 and errors.count("error: ") == 1 and said in errors, errors
        assert "Traceback" not in errors and not Place().alignment.exists()
        assert len(list(Place().work.glob("alignment-1-*/state/progress.json"))) == 1
    status, errors = run_planted(world, tmp_path, "", "alignment", "--cycle", "1")
    assert status == 0 and "cycle 1 goes on after iteration 1" in errors, errors
    assert digest(Place().alignment) == unbroken


@pytest.mark.parametrize(
    ("method", "room", "model"), [("ppo", "policy_gradient", "_model"), ("dpo", "preferences", "_policy")]
)
def test_a_rank_whose_weights_went_astray(
    world: Path, tmp_path: Path, change_params: ChangeParams, method: str, room: str, model: str
) -> None:
    """One number of one rank by its last bit, after its first update."""
    change_params(compute=TWO, method=method)
    plant = NUDGED.format(room=room, model=model)
    status, errors = run_planted(world, tmp_path, plant, "alignment", "--cycle", "1")
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
