"""Files by which the project is run, by the checkers of their formats; each of these finds a fault that is planted."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from tools import COMPOSE, INFRA, ROOT, faults, services, tracked, with_fault

from components.config.accelerate import accelerate_config
from components.errors import ConfigError

WORKFLOW = ROOT / ".github/workflows/test.yml"
SCHEMA = ("check-jsonschema", "--builtin-schema")


def test_the_compose_file_keeps_to_its_specification(tmp_path: Path) -> None:
    check = (*SCHEMA, "vendor.compose-spec")
    assert not faults(*check, COMPOSE)
    assert "helthcheck" in faults(*check, with_fault(COMPOSE, tmp_path, "    healthcheck:", "    helthcheck:"))


def test_the_workflow_keeps_to_its_schema(tmp_path: Path) -> None:
    check = (*SCHEMA, "vendor.github-workflows")
    assert not faults(*check, WORKFLOW)
    assert faults(*check, with_fault(WORKFLOW, tmp_path, "runs-on:", "run-on:"))


def test_the_dockerfile_is_linted(tmp_path: Path) -> None:
    check = ("hadolint", "--failure-threshold", "info")
    dockerfile = INFRA / "Dockerfile"
    assert not faults(*check, dockerfile)
    assert "DL3008" in faults(*check, with_fault(dockerfile, tmp_path, "# hadolint ignore=DL3008\n", ""))
    assert "DL3002" in faults(*check, with_fault(dockerfile, tmp_path, "USER 10001:10001", "USER root"))


def test_every_yaml_file_is_linted(tmp_path: Path) -> None:
    check = ("yamllint", "--strict", "--config-file", ROOT / ".yamllint")
    files = tracked("*.yaml", "*.yml")
    assert {COMPOSE, WORKFLOW, ROOT / "params.yaml"} <= set(files)
    assert not faults(*check, *files)
    assert "duplication of key" in faults(
        *check, with_fault(COMPOSE, tmp_path, "name: proximal\n", "name: a\nname: b\n")
    )


def test_every_shell_script_is_linted(tmp_path: Path) -> None:
    scripts = tracked("*.sh", ".ci/run")
    assert {INFRA / "make_venv.sh", INFRA / "compose/databases.sh", ROOT / ".ci/run"} <= set(scripts)
    assert not faults("shellcheck", *scripts)
    broken = with_fault(INFRA / "compose/databases.sh", tmp_path, '"${POSTGRES_USER:-postgres}"', "$POSTGRES_USER")
    assert "SC2086" in faults("shellcheck", broken)


MANIFESTS = sorted((INFRA / "k8s").glob("*.yaml"))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_kubernetes_resources(manifest: Path) -> None:
    assert not faults("kubernetes-validate", "--strict", manifest)


def test_a_faulty_manifest_is_found(tmp_path: Path) -> None:
    broken = with_fault(INFRA / "k8s/worker_cpu.yaml", tmp_path, "replicas: 1", "replica: 1")
    assert "replica" in faults("kubernetes-validate", "--strict", broken)


def _job(**asked: Any) -> dict[str, Any]:
    """The job that Prefect's worker makes by the template, its own way of filling in."""
    from prefect.utilities.templating import apply_values

    template = json.loads((INFRA / "k8s/gpu_pool.json").read_text())
    properties = template["variables"]["properties"]
    unknown = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"]))) ^ set(properties)
    assert not unknown, "a variable is declared and used, or neither"
    values = {name: each["default"] for name, each in properties.items() if "default" in each}
    filled: dict[str, Any] = apply_values(template["job_configuration"]["job_manifest"], values | asked)
    container = filled["spec"]["template"]["spec"]["containers"][0]
    # What the worker and the cluster write themselves.
    filled["metadata"]["name"] = filled["metadata"]["generateName"] + "1"
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    container["args"] = container["args"].split()
    return filled


def test_the_gpu_pool_makes_jobs_that_ask_for_gpus(tmp_path: Path) -> None:
    job = _job(name="stage", command="prefect flow-run execute", gpus=8)
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert [container["resources"][each]["nvidia.com/gpu"] for each in ("requests", "limits")] == [8, 8]
    assert pod["securityContext"]["runAsNonRoot"] and not container["securityContext"]["allowPrivilegeEscalation"]
    made = tmp_path / "job.json"
    made.write_text(json.dumps(job))
    assert not faults("kubernetes-validate", "--strict", made)
    made.write_text(json.dumps(job | {"spec": job["spec"] | {"backOffLimit": 0}}))
    assert "backOffLimit" in faults("kubernetes-validate", "--strict", made)


def test_pods_find_their_volumes_and_settings_in_the_manifests() -> None:
    text = "\n".join(path.read_text() for path in MANIFESTS)
    claims = set(re.findall(r"claimName: ([\w-]+)", text)) | {
        _job(name="a", command="b")["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    }
    assert claims == {"proximal-cache-cpu", "proximal-cache-gpu"}
    for name in claims:
        assert f"kind: PersistentVolumeClaim\nmetadata:\n  name: {name}\n" in text
    assert "password" not in text.lower().replace("mlflow_tracking_password", "")


ACCELERATE = sorted((INFRA / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("config", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_and_we_read_the_same(config: Path) -> None:
    theirs, ours = load_config_from_file(str(config)), accelerate_config(config)
    assert theirs.distributed_type == (ours.distributed_type or "NO")
    assert (theirs.num_processes, theirs.use_cpu) == (ours.num_processes, ours.use_cpu)
    assert (theirs.num_machines, theirs.main_process_ip) == (ours.num_machines, ours.main_process_ip)


def test_accelerate_configs_are_there_for_every_way_on_gpus() -> None:
    read = {path.stem: accelerate_config(path) for path in ACCELERATE if path.stem.startswith("gpu")}
    assert {(each.distributed_type, each.num_machines) for each in read.values()} == {
        *(("NO", 1), ("MULTI_GPU", 1), ("FSDP", 1), ("DEEPSPEED", 1), ("FSDP", 2))
    }


def test_a_faulty_accelerate_config_is_refused_by_both(tmp_path: Path) -> None:
    broken = with_fault(INFRA / "accelerate/gpu_fsdp2_two_machines.yaml", tmp_path, "num_machines", "machines")
    with pytest.raises(ValueError, match="machines"):
        load_config_from_file(str(broken))
    with pytest.raises(ConfigError, match="machines"):
        accelerate_config(broken)


DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def test_images_from_elsewhere_are_pinned_by_digest() -> None:
    theirs = {each["image"] for each in services().values() if not each["image"].startswith("proximal:")}
    base = re.search(r"ARG PYTHON_IMAGE=(\S+)", (INFRA / "Dockerfile").read_text())
    assert base and len(theirs) == 2
    assert all(DIGEST.search(image) for image in {*theirs, base[1]})


def test_the_service_is_published_on_this_machine_alone() -> None:
    ports = [port for each in services().values() for port in each.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200", "127.0.0.1:5000:5000"]


def test_whatever_goes_on_has_a_health_check() -> None:
    ends = {name for name, each in services().items() if each["restart"] == "no"}
    assert ends == {"buckets", "register"}
    assert {name for name, each in services().items() if "healthcheck" in each} == set(services()) - ends


def test_the_gpu_worker_has_the_gpus_and_comes_when_asked_for() -> None:
    worker = services()["worker-gpu"]
    devices = worker["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert worker["profiles"] == ["gpu"]


def test_no_secret_is_in_the_files_and_each_is_asked_for() -> None:
    text = "\n".join(line for line in COMPOSE.read_text().splitlines() if not line.lstrip().startswith("#"))
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert set(re.findall(r"\$\{(\w+)", text)) == asked | {"TORCH_INDEX"}
    lines = (INFRA / "compose/example.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(given) == asked | {"TORCH_INDEX"} and not any(given.values())
    for each in services().values():
        for name, value in each.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|AUTH_STRING", name):
                assert re.fullmatch(r"(proximal:)?\$\{\w+:\?[^}]+\}", value), name


def test_files_with_passwords_stay_out_of_git_and_of_the_image() -> None:
    names = ["infra/compose/secrets.env", "infra/k8s/secrets.env"]
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert ignored == names
    assert {"**/*.env", ".dvc/config.local"} <= set((INFRA / "Dockerfile.dockerignore").read_text().split())
