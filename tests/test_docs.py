"""The site of docs/: it builds strictly, its reference is whole, its params are valid, and it can be read offline."""

from __future__ import annotations

import ast
import html
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from readme import PAGES, ROOT, blocks, python_blocks
from ruamel.yaml import YAML

from components.config.reading import parse_params
from components.measuring.metrics import GOLD, MEANS, WIN_RATE
from flows.cli import commands

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SHIPPED: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
OF_ONES_OWN = ("cycles", "parts", "columns", "suites", "pools", "rubric_options")  # below them keys are people's


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, elsewhere."""
    built = tmp_path_factory.mktemp("site")
    done = mkdocs(ROOT / "mkdocs.yml", built)
    assert done.returncode == 0, done.stderr
    return built


def mkdocs(config: Path, into: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", into],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def code_of(page: Path) -> set[str]:
    """What stands as code on a page."""
    return {html.unescape(found) for found in re.findall(r"<code>([^<]+)</code>", page.read_text(encoding="utf-8"))}


def keys(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield above + key
        if isinstance(value, Mapping) and key not in OF_ONES_OWN:
            yield from keys(value, f"{above}{key}.")


def names(command: click.Command, name: str) -> Iterator[str]:
    yield name
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            if not inner.hidden:
                yield from names(inner, f"{name} {inner.name}")


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[away](nowhere.md)\n")
    shipped = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[0]
    hook = f"hooks: [{ROOT / 'infra/docs/pages.py'}]"
    (tmp_path / "mkdocs.yml").write_text(shipped.replace("hooks: [infra/docs/pages.py]", hook))
    (tmp_path / "docs" / "style.css").touch()
    done = mkdocs(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1 and "nowhere.md" in done.stderr


def test_reference_has_every_key_command_and_metric(site: Path) -> None:
    written = code_of(site / "reference/params.html")
    assert [key for key in keys(SHIPPED) if key not in written] == []
    assert {"reward_model.parts.NAME.url", "generation.command", "cycles.NAME.start", "ppo.gae_lambda"} <= written
    assert set(names(commands, "proximal")) <= code_of(site / "reference/cli.html")
    assert {metric.name for metric in (GOLD, *MEANS, WIN_RATE)} <= code_of(site / "reference/metrics.html")


def test_every_number_of_params_has_a_unit_or_a_meaning() -> None:
    found = importlib.util.spec_from_file_location("pages", ROOT / "infra/docs/pages.py")
    assert found is not None and found.loader is not None
    pages = importlib.util.module_from_spec(found)
    found.loader.exec_module(pages)
    rows = [line[2:-2].split(" | ") for line in pages.params().splitlines() if line.startswith("| `")]
    numbers = [row for row in rows if row[1].startswith(("number", "integer"))]
    assert len(numbers) > 150 and [row[0] for row in numbers if not row[2].strip() and not row[4].strip()] == []


def test_every_core_function_is_there(site: Path) -> None:
    page = (site / "reference/core.html").read_text(encoding="utf-8")
    for module in (ROOT / "components/core").glob("*.py"):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert f'id="components.core.{module.stem}.{node.name}"' in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_sets_is_valid_and_what_it_names_is_there(page: Path, site: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in blocks(text, "yaml"):
        parse_params(_laid_over(SHIPPED, YAML(typ="safe").load(block)), page.name)
    for block in python_blocks(text):
        ast.parse(block)
    known = code_of(site / "reference/params.html")
    named = re.findall(rf"`((?:{'|'.join(SHIPPED)})\.[a-z_][\w.]*)(?=[`:])", text)
    assert [key for key in named if key not in known and not (ROOT / key).is_file()] == []  # data.dvc is a file
    for path in re.findall(r"`((?:components|infra|flows|tests)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    inner = {
        key: _laid_over(below[key], value) if isinstance(below.get(key), dict) and key not in OF_ONES_OWN else value
        for key, value in above.items()
    }
    return {**below, **inner}


@pytest.mark.parametrize("width", [390, 1400])
def test_equations_are_drawn_and_nothing_is_fetched(browser: Browser, site: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else faults.append(asked.url)
    )
    page.goto((site / "explanation/ppo.html").as_uri())
    assert page.locator("h1").inner_text().startswith("PPO as this code does it")
    drawn = [math.bounding_box() for math in page.locator("div.math math").all()]
    assert len(drawn) == 9 and all(box and box["width"] > 50 and box["height"] > 10 for box in drawn)
    assert page.locator("article details summary").count() >= 8  # the sources beside them
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("article a[href*='core.html#components.core.advantages.gae']")
    assert page.url.endswith("reference/core.html#components.core.advantages.gae")
    assert faults == []
    page.close()
