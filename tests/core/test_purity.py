"""For every function of core/: arguments stay as they are, nothing is broadcast, nothing else happens."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from every_function import CALLS, MODULES, every_function, name_of, tensors_in
from torch import Tensor

import components.core

CORE = Path(components.core.__file__).parent


def test_every_public_function_is_called_here():
    public = {
        f"{module}.{name}"
        for module in MODULES
        if module != "checks"
        for name, member in vars(importlib.import_module(f"components.core.{module}")).items()
        if inspect.isfunction(member) and member.__module__.endswith(f".{module}") and not name.startswith("_")
    }
    called = {f"{function.__module__.rpartition('.')[2]}.{function.__name__}" for function in CALLS}
    assert public - called == set()


@every_function
def test_arguments_stay_as_they_are(function):
    arguments = CALLS[function]
    before = [(tensor.clone(), tensor._version) for tensor in tensors_in(arguments)]
    function(**arguments)
    for tensor, (copy, version) in zip(tensors_in(arguments), before, strict=True):
        assert torch.equal(tensor, copy) and tensor._version == version


@every_function
def test_the_same_arguments_give_the_same_bits_and_draw_nothing(function):
    state = torch.get_rng_state()
    first, second = function(**CALLS[function]), function(**CALLS[function])
    assert torch.equal(state, torch.get_rng_state())
    if isinstance(first, Tensor | tuple | list) and tensors_in(first):
        pairs = zip(tensors_in(first), tensors_in(second), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    else:
        assert first == second


@every_function
def test_nothing_is_broadcast(function):
    """A tensor of one row, or with a dimension more, would broadcast with the others: it is refused."""
    arguments = CALLS[function]
    names = [name for name, value in arguments.items() if isinstance(value, Tensor)]
    if len(tensors_in(arguments)) < 2:
        return
    for name in names:
        for wrong in (arguments[name][:1], arguments[name].unsqueeze(0)):
            with pytest.raises(ValueError, match="expected"):
                function(**(arguments | {name: wrong}))


every_masked_function = pytest.mark.parametrize(
    "function",
    [function for function, arguments in CALLS.items() if {"mask", "ended"} & set(arguments)],
    ids=name_of,
)


@every_masked_function
def test_a_mask_of_numbers_is_refused(function):
    arguments = CALLS[function]
    name = "mask" if "mask" in arguments else "ended"
    with pytest.raises(ValueError, match=f"{name}: expected dtype torch.bool"):
        function(**(arguments | {name: arguments[name].float()}))


# Functions that take tensors of any shape, as long as they agree.
OF_ANY_SHAPE = {
    "masked_sum",
    "masked_mean",
    "masked_var",
    "whiten",
    "RunningMoments.update",
    "vocabulary_logprobs",
    "token_logprobs",
    "token_logprobs_and_entropy",
    "kl_estimate",
    "best_of_n_kl",
    "next_kl_coef",
    "expectile_loss",
    "guided_logits",
    "polyak",
}


def with_one_more_dimension(value: Any) -> Any:
    if isinstance(value, list):
        return [with_one_more_dimension(part) for part in value]
    return value.unsqueeze(0) if isinstance(value, Tensor) else value


@every_function
def test_a_dimension_more_in_every_argument_is_refused_or_means_the_same(function):
    arguments = CALLS[function]
    deeper = {name: with_one_more_dimension(value) for name, value in arguments.items()}
    if name_of(function) not in OF_ANY_SHAPE:
        with pytest.raises(ValueError, match="expected"):
            function(**deeper)
    else:
        results = zip(tensors_in(function(**arguments)), tensors_in(function(**deeper)), strict=True)
        assert all(torch.equal(flat.flatten(), deep.flatten()) for flat, deep in results)


ALLOWED_IMPORTS = {
    "__future__",
    "collections.abc",
    "dataclasses",
    "math",
    "torch",
    "torch.nn.functional",
    "typing",
    "components.errors",
    *(f"components.core.{module}" for module in MODULES),
}
# Other devices, randomness, gradients, and everything that works in place.
FORBIDDEN_METHODS = r"cuda|cpu|backward|manual_seed|multinomial|rand\w*|\w*[a-z]_"


def impurities(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name not in ALLOWED_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and node.module not in ALLOWED_IMPORTS:
            found.append(str(node.module))
        elif isinstance(node, ast.Name) and node.id in {"open", "print"}:
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and re.fullmatch(FORBIDDEN_METHODS, node.attr):
            found.append(node.attr)
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [f"in place: {ast.unparse(target)}" for target in targets if isinstance(target, ast.Subscript)]
    return found


@pytest.mark.parametrize("module", [*MODULES, "__init__"])
def test_a_module_of_core_only_computes(module):
    assert impurities((CORE / f"{module}.py").read_text()) == []


def test_what_does_more_than_compute_is_seen():
    lines = ["import os", "x.add_(1)", "x[0] = 1", "x[0] += 1", "print(x)", "x.cuda()", "torch.randn(3)"]
    assert sorted(impurities("\n".join([*lines, "from flows import rlhf"]))) == sorted(
        ["os", "add_", "in place: x[0]", "in place: x[0]", "print", "cuda", "randn", "flows"]
    )
