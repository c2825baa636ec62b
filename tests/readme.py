"""The commands and the Python of README and of docs/, as a reader would copy them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = sorted(page for ending in ("md", "ipynb") for page in (ROOT / "docs").rglob(f"*.{ending}"))
# What a command begins with; of text between backticks, what has more than this one word is a command.
PROGRAMS = {".", "accelerate", "curl", "dvc", "export", "git", "make", "mlflow", "pip", "prefect", "proximal", "python"}
PROGRAMS |= {".venv/bin/proximal", ".venv/bin/pytest", "eval", "peer.py", "pytest", "until"}
_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """Every command of fenced blocks and between backticks, once, in the order of blocks, then of prose.

    A line that ends with a backslash goes on in the next one; what follows ` #` is said to the reader.
    """
    lines = []
    for language, block in _BLOCK.findall(text):
        if language != "python":
            lines += [re.sub(r"\s+#.*", "", line).strip() for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    found = [line for line in lines if line and line.split()[0] in PROGRAMS]
    for quoted in re.findall(r"`([^`]+)`", _BLOCK.sub("", text)):
        words = quoted.split()
        if words and words[0] in PROGRAMS and (len(words) > 1 or words == ["make"]):
            found.append(" ".join(words))
    return list(dict.fromkeys(found))


def python_blocks(text: str) -> list[str]:
    """The Python that a text shows."""
    return blocks(text, "python")


def blocks(text: str, wanted: str) -> list[str]:
    """The fenced blocks in a language."""
    return [textwrap.dedent(block) for language, block in _BLOCK.findall(text) if language == wanted]
