"""MkDocs' hook: the pages of reference, made from the code at each build, and equations as MathML."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
DOORS = ("data_validation", "sft", "reward_model", "alignment", "selection", "evaluation", "promotion")
# What a key's name ends with, and the unit that it is in.
UNITS = {
    "_nats_per_sequence": "nats per sequence",
    "_nats_per_token": "nats per token",
    "_characters": "characters",
    "_tokens": "tokens",
    "_seconds": "seconds",
    "_hours": "hours",
    "_rollouts": "rollouts",
    "_iterations": "iterations",
    "_fraction": "a share",
    "_minutes": "minutes",
    "_prompts": "prompts",
    "_per_prompt": "responses",
    "epochs": "passes",
}
# Of keys that many sections have, where nothing stands beside them: what a name ends with, the unit, the meaning.
COMMON = (
    ("cpu_threads.*", "threads", "of each process of the stage, on a CPU"),
    ("timeout_minutes.*", "minutes", "null: as long as it takes"),
    ("scratch.vocabulary_size", "tokens", "of a tokenizer that is trained on the data"),
    ("scratch.*", "", "of a model that begins with random weights"),
    ("adapter.rank", "", "of each adapted matrix's change"),
    ("length_penalty.factor", "score", "what a response of the limit's length loses"),
    ("prompts_per_iteration", "prompts", "answered in an iteration"),
    ("cql_coef", "", "of the conservative term in the Q heads' loss"),
    ("requests_at_once", "requests", "that the server gets before it has answered the first"),
    ("importance_weight_cap", "", "weights of policy over engine are cut there; null: none are taken"),
    ("price_per_device_hour", "currency", "of a process for an hour"),
    ("parts.NAME.weight", "", "of the part in the sum"),
    ("parts.NAME.batch_size", "responses", "scored in one call"),
    ("parts.NAME.retries", "calls", "again, after one that failed"),
    ("suites.NAME.batch_size", "responses", "in one call"),
    ("suites.NAME.max_fall", "of the suite", "a fall of the mean beyond it refuses as well, sure or not"),
    ("measurement.batch_size", "responses", "sampled at once"),
    ("batch_size", "rows", "of an optimiser step: demonstrations, or comparisons"),
    ("microbatch_size", "sequences", "of one forward pass; several make up a step"),
    ("seed", "", "of all random numbers: the same gives the same bytes"),
    ("seed_offset", "", "what is added to seed, so that models differ"),
    ("learning_rate", "", "of AdamW, at its height"),
    ("weight_decay", "", "of AdamW, apart from the gradient"),
    ("gradient_clip", "", "the largest norm that all gradients together keep"),
    ("temperature", "", "at which the policy samples, and its logprobs are taken"),
    ("epochs", "passes", "over the rows, or an iteration's rollouts"),
    ("minibatches", "steps", "of the optimiser in a pass over an iteration's rollouts"),
    ("iterations_per_cycle", "iterations", "in each cycle"),
    ("rollouts_per_iteration", "rollouts", "sampled, scored and learned from in an iteration"),
    ("comparisons_per_iteration", "comparisons", "learned from in an iteration"),
    ("normalisation_prompts", "prompts", "answered by the SFT policy: over them scores get mean 0 and deviation 1"),
    ("calibration_bins", "bins", "of the reliability diagram"),
    ("missing_eos_value", "score", "of a response without an end, or what it costs"),
    ("score_clip", "score", "scores are cut at plus and minus this"),
    ("entropy_coef", "", "of the mean entropy in the policy's loss"),
    ("gamma", "", "discount of a token's reward, for each token before it"),
    ("gae_lambda", "", "of GAE: 0 trusts the values, 1 the rewards"),
    ("value_clip_range", "value", "how far a value may move from the rollout's; null: as far as it likes"),
    ("beta", "", "of the KL to the reference, as in DPO's loss"),
    ("first_n", "responses", "of which cycle 1 takes the best"),
    ("growth", "", "by which n grows with each cycle"),
    ("confidence", "a share", "of the intervals"),
    ("shown_samples", "prompts", "in the report's table, drawn by lot"),
    ("min_prompts", "prompts", "held out; with fewer nothing is promoted"),
    ("max_length_ratio", "", "mean response length over the SFT policy's"),
    ("min_annotator_agreement", "a share", "below it the data report warns"),
    ("max_longer_wins", "a share", "of comparisons that the longer, or the shorter, wins; above it the report warns"),
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fences ```math become MathML, which browsers draw by themselves."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "math", "class": "math", "format": equation}]
    return config


def equation(source: str, *_: Any, **__: Any) -> str:
    """An equation in LaTeX as MathML on a line of its own."""
    return f'<div class="math">{convert(source.strip(), display="block")}</div>'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The site's files with those that are generated."""
    generated = {"params": params(), "metrics": metrics(), "cli": command_line(), "core": core(), "stages": stages()}
    for name, text in generated.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook(path)))
    return files


def notebook(path: Path) -> str:
    """A notebook's text and code as a page, with the file itself to load down; what it prints is of whoever runs it."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    head, *rest = parts
    return "\n\n".join([head, f"The notebook: [{path.name}]({path.name}).", *rest, ""])


def command_line() -> str:
    """click's own help of every command."""
    sys.path.insert(0, str(ROOT))
    from flows.cli import commands

    def told(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
        context = click.Context(command, info_name=name, parent=parent, terminal_width=100)
        yield f"## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n"
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                if found is not None and not found.hidden:
                    yield from told(found, inner, context)

    return "# Command line\n\n" + "\n".join(told(commands, "proximal", None))


def core() -> str:
    """All of components/core, a heading a module."""
    modules = sorted(path.stem for path in (ROOT / "components/core").glob("*.py") if path.stem != "__init__")
    head = "# Core functions\n\nTensors in, tensors out. What `Holds` says of a function, a test of its name holds.\n\n"
    return head + "".join(f"::: components.core.{name}\n    options: {{heading_level: 2}}\n\n" for name in modules)


def stages() -> str:
    """The door of each stage: what it reads, and the function that does its work."""
    head = "# Stages\n\nThe door of each stage, which `components/stages.py` opens; stages meet in files.\n\n"
    body = (f"## {name}\n\n::: components.{name}.run\n    options: {{show_root_heading: false, "
            f"show_root_toc_entry: false}}\n\n" for name in DOORS)  # fmt: skip
    return head + "".join(body)


def metrics() -> str:
    """What is reported of a policy, as components/measuring/metrics.py defines it."""
    sys.path.insert(0, str(ROOT))
    from components.measuring import metrics as known
    from components.worlds.helpdesk.rubric import PARTS

    def row(metric: known.Metric) -> str:
        better = {True: "more is better", False: "less is better", None: "neither"}[metric.more_is_better]
        return f"| `{metric.name}` | {metric.label} | {cell(metric.meaning)} | {better} |"

    columns = ["| name | in reports | what it is | direction |", "|---|---|---|---|"]
    measured = [known.GOLD, *known.MEANS, *known.DISTINCT.values(), known.WIN_RATE]
    parts = [known.part(name, PARTS) for name in PARTS]
    scorers = known.scorer_metrics(f"{scorer}NAME" for scorer in known.SCORERS)
    return "\n".join([
        "# Metrics", "",
        "Means over prompts where nothing else is said, with intervals by prompt.", "",
        *columns, *map(row, measured), "",
        "## Parts of the shipped rubric", "", *columns, *map(row, parts), "",
        "## Parts of scorers that are made of several", "", *columns, *map(row, scorers), "",
    ])  # fmt: skip


def params() -> str:
    """Every key of params.yaml: type, unit, shipped value, and the comment beside it in code or in params.yaml."""
    schema = json.loads((ROOT / "infra/params.schema.json").read_text(encoding="utf-8"))
    shipped = YAML().load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    head = "# Params\n\nEvery key of `params.yaml`, the only place a value lives, with the value that is shipped.\n\n"
    return head + "\n".join(_section("", schema, schema["$defs"], shipped))


def _section(path: str, section: Mapping[str, Any], classes: Mapping[str, Any], values: Any) -> Iterator[str]:
    yield from ["| key | type | unit | shipped | meaning |", "|---|---|---|---|---|"]
    for key, of_key in section["properties"].items():
        value = values.get(key) if isinstance(values, Mapping) else None
        given = "" if not isinstance(values, Mapping) or key not in values or _inner(of_key) else f"`{plain(value)}`"
        common = next((told for told in COMMON if _is_named(f"{path}{key}", told[0])), ("", "", ""))
        unit = next((unit for end, unit in UNITS.items() if f"_{key}".endswith(end)), common[1])
        meaning = of_key.get("description") or _comment(values, key) or common[2]
        yield f"| `{path}{key}` | {cell(kind(of_key))} | {unit} | {cell(given)} | {cell(meaning)} |"
    yield ""
    for key, of_key in section["properties"].items():
        value = values.get(key) if isinstance(values, Mapping) else None
        for between, name in _inner(of_key):
            own = classes[name]
            one_of_several = len(_inner(of_key)) > 1
            told = next(iter(value.values()), None) if between and isinstance(value, Mapping) else value
            choice = own["properties"].get("source", own["properties"].get("engine", {})).get("const")
            if one_of_several and (not isinstance(told, Mapping) or choice not in told.values()):
                told = None
            full = f"{path}{key}{between}"
            yield f"{'###' if path else '##'} `{full}`{f', {choice}' if one_of_several else ''}\n"
            yield f"{cell(own.get('description', ''))}\n"
            yield from _section(f"{full}.", own, classes, told)


def _is_named(key: str, ending: str) -> bool:
    """Whether a dotted key ends so; `*` stands for any last word."""
    if ending.endswith(".*"):
        key, ending = key.rpartition(".")[0], ending.removesuffix(".*")
    return key == ending or key.endswith((f".{ending}", f"_{ending}" if "." not in ending else f".{ending}"))


def _inner(schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The classes that a key's value may be of, and what stands between the key and theirs."""
    if "$ref" in schema:
        return [("", schema["$ref"].rpartition("/")[2])]
    found = [pair for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) for pair in _inner(one)]
    of_names = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    return found + [(f".NAME{b}", name) for one in of_names if isinstance(one, Mapping) for b, name in _inner(one)]


def kind(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        return "a section"
    several = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if several:
        return " or ".join(dict.fromkeys(map(kind, several)))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}"
    if schema.get("type") == "object":
        of_names = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        inner = [kind(one) for one in of_names if isinstance(one, Mapping)]
        return f"names to {inner[0]}" if inner else "names to values"
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    said = [f"{words} {schema[bound]:g}" for bound, words in bounds.items() if bound in schema]
    return " ".join([schema.get("type", "any value"), ", ".join(said)]).strip()


def _comment(values: Any, key: str) -> str:
    """What stands behind the key's value in params.yaml."""
    tokens = getattr(getattr(values, "ca", None), "items", {}).get(key) or []
    said = next((token.value for token in tokens if hasattr(token, "value")), "")
    return str(said).partition("\n")[0].strip().removeprefix("#").strip()


def plain(value: Any) -> str:
    """A value of params.yaml on one line, as JSON."""
    return json.dumps(value, ensure_ascii=False)


def cell(text: str) -> str:
    """Text as it may stand in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
