"""A command that serves a page, and the page in a browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components.processes import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_MS = 300_000.0


class Served:
    """`proximal ...` at work, on a port of its own."""

    def __init__(self, log: Path, folder: Path, *command: str, more: Mapping[str, str] | None = None) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(log.parent), **(more or {})}
        words = [sys.executable, "-m", "flows.cli", *command, "--port", str(port)]
        self.log = log.open("a+")
        self.process = subprocess.Popen(words, cwd=folder, env=environment, stdout=self.log, stderr=self.log)
        until = time.monotonic() + PATIENCE_MS / 1000
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.log.seek(0)
                pytest.fail(self.log.read())
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def opened(browser: Browser, url: str) -> Page:
    """A page in a window that knows of no other one."""
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    return page
