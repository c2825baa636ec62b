"""The JSON Schema of params.yaml: editors complete keys with it, explain them and mark what cannot be."""

from __future__ import annotations

import inspect
import re
from typing import Any

from components.config import keys
from components.config.base import METHODS, POLICY_GRADIENT_METHODS, Section
from components.config.params import Params
from components.config.policy_gradient import PolicyGradient

FILE = "infra/params.schema.json"  # the committed one, which the first line of params.yaml names
_REMARK = re.compile(r"^    (\w+): .*  # (.+)$", re.MULTILINE)


def json_schema() -> dict[str, Any]:
    """What a params file may hold, as far as that can be said key by key; rules between keys are left to `load_params`.

    What stands beside a field in its class as a comment describes it.
    """
    schema = Params.model_json_schema()
    definitions = schema.pop("$defs")
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}
    for section in keys.sections():
        described = whole if section is Params else definitions[section.__name__]
        remarks = _remarks(section)
        del described["title"]
        for name, value in described["properties"].items():
            value.pop("title", None)
            if name in remarks:
                value["description"] = remarks[name]
    # What `Params` fills in: methods that are not chosen may be absent, and policy_gradient has values for its own.
    _demand_no(METHODS, whole)
    for method in POLICY_GRADIENT_METHODS:
        settings = keys.section_in(Params.model_fields[method].annotation)
        assert settings is not None, "a method and its section have one name"
        _demand_no(tuple(PolicyGradient.model_fields), definitions[settings.__name__])
    return whole


def _demand_no(names: tuple[str, ...], described: dict[str, Any]) -> None:
    described["required"] = [name for name in described["required"] if name not in names]


def _remarks(section: type[Section]) -> dict[str, str]:
    """The comments beside the fields of a class and of those that it is made from."""
    classes = [made_from for made_from in reversed(section.__mro__) if issubclass(made_from, Section)]
    return {name: remark for made_from in classes for name, remark in _REMARK.findall(inspect.getsource(made_from))}
