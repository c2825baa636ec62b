"""What all tests share: an environment without what a flow before them has set, and a browser for tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from components.place import UNDELIVERED_VARIABLE

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
os.environ["DVC_NO_ANALYTICS"] = "1"  # whatever a test's project says: DVC would report every command of every test


@pytest.fixture(autouse=True)
def own_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow in this process says for good where what it tells is kept; the next test's has a folder of its own."""
    monkeypatch.delenv(UNDELIVERED_VARIABLE, raising=False)


# For a module, not for the session: while it is open, its thread has a running event loop, and Prefect wants its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, to open pages in: `browser.new_page(viewport={"width": 390, "height": 800})`."""
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        pytest.skip(f"no Chromium is installed: looked for {', '.join(CHROMIUM)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()
