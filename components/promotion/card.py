"""The model card of a policy, README.md as Hugging Face reads it: from the registry's tags and the recorded runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from components.measuring.metrics import number
from components.place import Place
from components.promotion.floors import by_suite, floor_line
from components.promotion.verdict import figures_in, metric_of
from components.tracking.history import get_run
from components.tracking.lineage import RawFile, trace_version
from components.tracking.registry import POLICY_DIGEST, ModelVersion, attach_to

CARD = "README.md"
_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_UNKNOWN = "unknown"


class Origin(NamedTuple):
    """What a version was made from.

    Args:
        base: the checkpoint that SFT began with, with its digest or commit; "scratch" for none.
        models: the digest of each frozen model that it was trained or judged with, by names for people.
    """

    base: str
    method: str
    seed: str
    models: dict[str, str]
    raw_files: list[RawFile]


def card_of(version: ModelVersion, root: Path) -> str:
    """The card of a registered version, as of now.

    Args:
        root: of the repository, whose data and cache may hold the raw files.
    """
    origin, figures = _origin(version, root), figures_in(version.tags)
    metric = metric_of(version.tags) if figures else None
    shown = {name: number(figures[name], metric) for name in figures} if metric else {}
    suites = {name: floor_line(name, found) for name, found in by_suite(figures).items()}
    return _rendered(
        _front_matter(origin, root),
        title=f"{version.name}, version {version.number}",
        version=version,
        tags=version.tags,
        digest=version.tags.get(POLICY_DIGEST, _UNKNOWN),
        origin=origin,
        metric=metric,
        figures=shown,
        suites=suites,
    )


def card_of_folder(policy_digest: str) -> str:
    """The card of a policy that nobody asks the registry about.

    Args:
        policy_digest: of its folder.
    """
    title = "A policy that is exported from a folder"
    return _rendered(_front_matter(None, Path()), title=title, version=None, digest=policy_digest)


def attach_card(version: ModelVersion, root: Path) -> None:
    """Write the card beside the files of a registered version, over the one that is there; see `card_of`."""
    attach_to(version, CARD, card_of(version, root))


def _origin(version: ModelVersion, root: Path) -> Origin:
    steps = trace_version(version, root).root.all_steps()
    inputs = {path: value for step in steps for path, value in step.run.inputs.items()}
    named = zip(("SFT policy", "Reward model", "Judge"), Place().frozen, strict=True)
    pipeline = get_run(version.tags["parent_run_id"]) if version.tags.get("parent_run_id") else None
    tags = pipeline.tags if pipeline else {}
    return Origin(
        base=next((step.run.tags["base_model"] for step in steps if "base_model" in step.run.tags), _UNKNOWN),
        method=tags.get("method", _UNKNOWN),
        seed=tags.get("seed", _UNKNOWN),
        models={name: inputs.get(path.as_posix(), _UNKNOWN) for name, path in named},
        raw_files=[file for step in steps for file in step.raw_files],
    )


def _front_matter(origin: Origin | None, root: Path) -> str:
    matter: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    tags = ["proximal", "rlhf"]
    if origin is not None:
        tags += [origin.method] if origin.method != _UNKNOWN else []
        base = origin.base.partition(" ")[0]
        if base not in ("scratch", _UNKNOWN):
            matter["base_model"] = base
            matter |= _license(root / base)
    text = io.StringIO()
    YAML().dump({**matter, "tags": tags}, text)
    return text.getvalue()


def _license(base: Path) -> dict[str, str]:
    """What the card of a base in a folder says of its license; nothing where it says none."""
    card = base / CARD
    if not card.is_file() or not (text := card.read_text(encoding="utf-8")).startswith("---\n"):
        return {}
    matter = YAML(typ="safe").load(text.split("---\n")[1])
    return {"license": str(matter["license"])} if isinstance(matter, dict) and "license" in matter else {}


def _rendered(front_matter: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return pages.get_template(_TEMPLATE.name).render(front_matter=front_matter, **values)
