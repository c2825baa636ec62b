"""People are told: automations on a real server, their webhook a receiver of ours, runs that go wrong in four ways."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from service import served, wait_until
from test_shown import run_of
from tiny_project import REPOSITORY, Tiny, run_command

from components.config import load_params
from components.errors import ConfigError
from components.measuring.records import Record, write_records
from flows.alarms import alarms_of
from flows.events import KL_ABOVE_CEILING, PROXY_RISING

PROMPTS = 40
# Stands for a cycle: what it would have measured lies ready.
CYCLE = """
import os, shutil, sys
from pathlib import Path

Path(os.environ["PROXIMAL_STATUS_FILE"]).write_text("0")
shutil.copytree(Path("ready", sys.argv[1]), Path("artifacts/alignment", sys.argv[1]), dirs_exist_ok=True)
"""


class Receiver(ThreadingHTTPServer):
    """A webhook's other end, which keeps what it is told."""

    def __init__(self) -> None:
        received: list[tuple[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                received.append((self.path, json.loads(content)["text"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.received = received

    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/secret-token"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def records(reward: float, judge: float, prompts: int = PROMPTS, spread: float = 0.0) -> list[Record]:
    """Means as given; prompts are half a unit easier or harder for every policy alike, and `spread` for this one."""
    one = Record("", "ask", None, 0, "answer", 1, True, 0.0, 0.0, 1.0, 1.0)
    shifts = [0.5 if number % 2 else -0.5 for number in range(prompts)]
    return [
        replace(
            one,
            prompt_id=str(number),
            reward=reward + shift,
            judge=judge + shift + (spread if number % 4 < 2 else -spread),
        )
        for number, shift in enumerate(shifts)
    ]


def write_cycle(root: Path, number: int, kl: float, **measured: list[Record]) -> None:
    folder = root / str(number)
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"validation": {"kl": kl}}))
    write_records(folder / "validation.jsonl", measured)


def test_figures_are_bad_where_selection_and_the_intervals_say_so(tmp_path: Path) -> None:
    params = load_params(REPOSITORY / "params.yaml")  # a ceiling of 5.5
    root = tmp_path / "artifacts" / "alignment"
    write_cycle(root, 1, 5.5, cycle=records(1.0, 1.0), start=records(0.0, 0.0))
    write_cycle(root, 2, 5.51, cycle=records(1.5, 0.8))
    write_cycle(root, 3, 2.0, cycle=records(1.4, 0.5))  # both fall
    write_cycle(root, 4, 2.0, cycle=records(1.6, 0.499, spread=0.2))  # the judge by less than it varies
    assert alarms_of(1, tmp_path, params) == []
    kl, proxy = alarms_of(2, tmp_path, params)
    assert kl.event == KL_ABOVE_CEILING and "a KL of 5.51 nats per sequence is above the ceiling of 5.5" in kl.reason
    assert proxy.event == PROXY_RISING and "(+0.500) while the judge falls (-0.200)" in proxy.reason
    assert alarms_of(3, tmp_path, params) == []
    assert alarms_of(4, tmp_path, params) == []
    few = tmp_path / "few"
    of_few = {"cycle": records(1.0, -1.0, 29), "start": records(0.0, 0.0, 29)}
    write_cycle(few / "artifacts" / "alignment", 1, 1.0, **of_few)
    assert alarms_of(1, few, params) == []  # of 29 prompts nothing is said


def test_what_is_no_address_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.deploy import NOTIFY_VARIABLE, _notifying_block

    for address in ("", "hooks.example/token", "mailto:somebody@example", "https://"):
        with pytest.raises(ConfigError) as refusal:
            _notifying_block(address)
        assert refusal.value.where == NOTIFY_VARIABLE
        assert "token" not in str(refusal.value) and "somebody" not in str(refusal.value)


@pytest.mark.timeout(600)
def test_people_are_told_of_each_run_that_goes_wrong(
    tiny: Tiny, receiver: Receiver, prefect_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.deploy import _notifying_block, _renew_automations
    from flows.rlhf import rlhf

    _cycles(tiny)
    with served(prefect_database, tmp_path / "home") as service, temporary_settings({PREFECT_API_URL: service.api}):
        from prefect.client.orchestration import get_client

        file = REPOSITORY / "infra" / "notifications.yaml"
        for _ in range(2):  # again, it is the same
            with get_client(sync_client=True) as client:
                _renew_automations(client, file, _notifying_block(receiver.address()))
        assert len(service.post("automations/filter", {})) == 4
        documents = json.dumps(service.post("block_documents/filter", {}))
        assert "proximal" in documents and "secret-token" not in documents

        state = rlhf(tiny.folder, return_state=True, promotion=False)
        assert state.is_completed(), state.message
        told = run_of(state).name
        bad = _received(receiver, 2, tmp_path)
        assert {text for _, text in bad} == {
            f"{told}: look at its figures\n"
            "cycle 1: a KL of 7.00 nats per sequence is above the ceiling of 5.5 (selection.max_kl_nats_per_sequence)",
            f"{told}: look at its figures\n"
            "cycle 1: the training reward rises (+1.000) while the judge falls (-0.300): over-optimisation",
        }
        assert {path for path, _ in bad} == {"/hooks/secret-token"}

        assert rlhf(tiny.folder, return_state=True, promotion=False).is_completed()  # the same again: no alarm
        tiny.stages(late={"status": 1, "prints": ["RuntimeError: out of luck\n"]})
        late = rlhf(tiny.folder, return_state=True, promotion=False)
        assert late.is_failed()
        failed = _received(receiver, 3, tmp_path)[2][1]
        assert failed.startswith("ppo seed 1 ") and ": Failed\n" in failed and "out of luck" in failed

        rlhf(tiny.folder, return_state=True, promotion=False, revision="HEAD", overrides={"sft.epoch": 3})
        refused = _received(receiver, 4, tmp_path)[3][1]
        assert ": Refused\n" in refused and "sft.epoch" in refused

        # As infra/automations.yaml does with a run that falls silent.
        silent = {"type": "CRASHED", "message": "No sign of life for two minutes."}
        service.post(f"flow_runs/{late.state_details.flow_run_id}/set_state", {"state": silent, "force": True})
        assert _received(receiver, 5, tmp_path)[4][1].endswith(": Crashed\nNo sign of life for two minutes.")


def _received(receiver: Receiver, number: int, tmp_path: Path) -> list[tuple[str, str]]:
    wait_until(lambda: len(receiver.received) >= number, tmp_path / "home" / "server.log")
    assert len(receiver.received) == number
    return receiver.received


def _cycles(tiny: Tiny) -> None:
    """A pipeline of one cycle that measured what is bad in both ways."""
    write_cycle(tiny.folder / "ready", 1, 7.0, cycle=records(1.0, -0.3), start=records(0.0, 0.0))
    (tiny.folder / "cycle.py").write_text(CYCLE)
    stage = {
        "foreach": {"1": {}},
        "do": {"cmd": "exec python cycle.py ${key}", "deps": ["ready"], "outs": ["artifacts/alignment/${key}"]},
    }
    YAML().dump({"stages": {"alignment": stage}}, tiny.folder / "dvc.yaml")
    with (tiny.folder / ".gitignore").open("a") as ignored:
        ignored.write("/artifacts\n")
    run_command("git", "add", "-A", folder=tiny.folder)
    tiny.commit()
