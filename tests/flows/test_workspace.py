"""A clone of its own for every run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tiny_project import Tiny

from components.errors import ConfigError, EnvironmentFault
from flows.workspace import RUNS, whole_repository, workspace

VLLM = {
    "arguments": [],
    "environment": {},
    "dtype": "float32",
    "start_timeout_seconds": 60,
    "sleeps": False,
    "requests_at_once": 4,
    "timeout_seconds": 60,
    "max_probe_gap_nats_per_token": 0.1,
    "max_mismatch_kl_nats_per_token": 0.1,
    "importance_weight_cap": None,
}
RUN = """
import json, sys
from pathlib import Path
from flows.rlhf import rlhf
state = rlhf(Path(sys.argv[1]), overrides={"seed": int(sys.argv[2])}, promotion=False, return_state=True)
print("RESULT", json.dumps(state.result().stages))
"""


def test_a_workspace_is_a_clone_at_the_revision_with_the_data_and_the_cache(tiny: Tiny) -> None:
    tiny.stages(a={"needs": ["data/rows"]})
    first = tiny.commit()
    (tiny.folder / "later").touch()
    tiny.commit()
    with workspace(tiny.folder, name="one", revision=first, overrides={"seed": 7, "ppo.gamma": 0.5}) as folder:
        assert folder == tiny.folder / RUNS / "one"
        assert not (folder / "later").exists()
        assert (folder / "data" / "rows").read_text() == "1\n"
        params, original = (YAML(typ="safe").load(place / "params.yaml") for place in (folder, tiny.folder))
        assert (params["seed"], params["ppo"]["gamma"]) == (7, 0.5)
        original["seed"] = 7
        original["ppo"]["gamma"] = 0.5
        assert params == original
        parameters = (folder / "params.yaml").read_text()
        dvc = [sys.executable, "-m", "dvc"]
        subprocess.run([*dvc, "repro", "--quiet"], cwd=folder, check=True, env={**os.environ, "PATH": _path()})
    assert not folder.exists()

    # The shared cache keeps what the clone made: here it is restored, not run.
    (tiny.folder / "params.yaml").write_text(parameters)
    subprocess.run([*dvc, "repro", "--quiet"], cwd=tiny.folder, check=True)
    assert (tiny.folder / "a.out").read_text() == "a" + parameters
    assert tiny.began() == []


def test_credentials_of_the_remote_stay_their_owners_and_leave_a_failed_workspace(tiny: Tiny) -> None:
    tiny.commit()
    local = tiny.folder / ".dvc" / "config.local"
    local.write_text("['remote \"team\"']\n    url = s3://bucket\n    secret_access_key = PLANTED\n")
    local.chmod(0o644)
    umask = os.umask(0o022)
    with (
        pytest.raises(RuntimeError),
        workspace(tiny.folder, name="one", revision="HEAD", overrides={}) as folder,
    ):
        os.umask(umask)
        copy = folder / ".dvc" / "config.local"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert copy.stat().st_mode & 0o777 == 0o600
        assert "PLANTED" in copy.read_text()
        raise RuntimeError
    assert "PLANTED" not in copy.read_text()
    assert str(tiny.folder) in copy.read_text()  # where the shared cache is
    assert (folder.stat().st_mode & 0o777, copy.stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("language_model.trust_remote_code", True),
        ("generation", {"engine": "vllm", "command": ["sh", "-c", "touch planted"]}),
    ],
)
def test_overrides_name_no_code_that_params_do_not(tiny: Tiny, key: str, value: Any) -> None:
    tiny.commit()
    if key == "generation":
        value = VLLM | value
    with (
        pytest.raises(ConfigError, match=r"(?s)overrides may not name code.*params.yaml itself and commit"),
        workspace(tiny.folder, name="one", revision="HEAD", overrides={key: value}),
    ):
        pass
    assert not (tiny.folder / RUNS / "one").exists()
    file = tiny.folder / "params.yaml"
    params = YAML().load(file)
    section, _, name = key.partition(".")
    (params[section] if name else params)[name or section] = value
    YAML().dump(params, file)
    tiny.commit()
    with workspace(tiny.folder, name="one", revision="HEAD", overrides={"seed": 7, key: value}) as folder:
        assert folder.exists()


def test_a_commit_that_trusts_one_checkpoint_trusts_no_other_by_overrides(tiny: Tiny) -> None:
    file = tiny.folder / "params.yaml"
    params = YAML().load(file)
    params["language_model"]["trust_remote_code"] = True
    YAML().dump(params, file)
    tiny.commit()
    with (
        pytest.raises(ConfigError, match="overrides may not name code"),
        workspace(tiny.folder, name="one", revision="HEAD", overrides={"language_model.checkpoint": "other/model"}),
    ):
        pass


def test_a_failed_run_keeps_its_workspace(tiny: Tiny) -> None:
    tiny.commit()
    with (
        pytest.raises(RuntimeError),
        workspace(tiny.folder, name="one", revision="HEAD", overrides={}) as folder,
    ):
        raise RuntimeError
    assert folder.exists()


@pytest.mark.parametrize(
    ("revision", "overrides", "where"),
    [
        ("nowhere", {}, "tiny"),
        ("--help", {}, "tiny"),
        ("HEAD", {"ppo.gama": 1.0}, "params.yaml with ppo.gama=1.0: ppo.gama"),
        ("HEAD", {"seed.more": 1}, "params.yaml: seed.more"),
        ("HEAD", {"seed": "abc"}, "params.yaml with seed=abc: seed"),
    ],
)
def test_bad_requests(tiny: Tiny, revision: str, overrides: dict[str, object], where: str) -> None:
    with (
        pytest.raises(ConfigError) as refusal,
        workspace(tiny.folder, name="one", revision=revision, overrides=overrides),
    ):
        pass
    assert refusal.value.where.endswith(where)
    assert not (tiny.folder / RUNS / "one").exists()


def test_the_repository_itself_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    with whole_repository(tmp_path), pytest.raises(EnvironmentFault), whole_repository(tmp_path):
        pass
    with whole_repository(tmp_path):
        pass


def test_two_runs_at_once_do_not_disturb_each_other(tiny: Tiny, prefect_api: str) -> None:
    tiny.stages(a={"seconds": 3}, b={"needs": ["a"], "seconds": 3})
    tiny.commit()
    log = tiny.folder / "log.jsonl"
    environment = {**os.environ, "PREFECT_API_URL": prefect_api, "TINY_LOG": str(log)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(tiny.folder), seed],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in ("5", "6")
    ]
    outputs = [run.communicate(timeout=180)[0] for run in runs]
    for run, output in zip(runs, outputs, strict=True):
        assert run.returncode == 0, output
        result = json.loads(output.split("RESULT ")[1].splitlines()[0])
        assert result == {"a": "ran", "b": "ran"}
    assert sorted(tiny.began()) == ["a", "a", "b", "b"]
    assert list((tiny.folder / RUNS).iterdir()) == []
    assert tiny.git("status", "--porcelain") == ""


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
