from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from components.core.ilql import guided_logits, ilql_losses, polyak

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)

SEEDS = st.integers(0, 2**31)
RATES = {"gamma": 0.9, "tau": 0.7, "beta": 0.5}
NAN = float("nan")


def batch(seed: int, rows: int = 2, columns: int = 4, vocabulary: int = 3) -> dict:
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    return {
        "logits": normal(rows, columns, vocabulary),
        "q_heads": [normal(rows, columns, vocabulary) for _ in range(2)],
        "target_q_heads": [normal(rows, columns, vocabulary) for _ in range(2)],
        "values": normal(rows, columns),
        "tokens": torch.randint(vocabulary, (rows, columns), generator=generator),
        "rewards": normal(rows, columns),
        "mask": torch.rand(rows, columns, generator=generator) < 0.6,
    }


def each_tensor(arguments: dict, change) -> dict:
    return {
        name: [change(head) for head in value] if isinstance(value, list) else change(value)
        for name, value in arguments.items()
    }


def test_two_tokens_by_hand():
    """gamma 1/2: targets 0 + 1.5/2 = .75 and 1. Target Q of the tokens, the smaller head: 1.5 and .5.

    q: (1 - .75)^2 + (3 - .75)^2 = 5.125 and (2 - 1)^2 + (1 - 1)^2 = 1.
    V: .8 (1.5 - .5)^2 and .2 (.5 - 1.5)^2.
    Policy odds 1 to 3: ln 4 with weight e^(1.5 - .5), ln 4/3 with weight e^(.5 - 1.5).
    """
    losses = ilql_losses(
        logits=f64([[[0.0, math.log(3)], [0.0, math.log(3)]]]),
        q_heads=[f64([[[1.0, 0.0], [0.0, 2.0]]]), f64([[[3.0, 0.0], [0.0, 1.0]]])],
        target_q_heads=[f64([[[2.0, 9.0], [9.0, 0.5]]]), f64([[[1.5, -9.0], [-9.0, 4.0]]])],
        values=f64([[0.5, 1.5]]),
        tokens=torch.tensor([[0, 1]]),
        rewards=f64([[0.0, 1.0]]),
        mask=torch.tensor([[True, True]]),
        gamma=0.5,
        tau=0.8,
        beta=1.0,
    )
    exactly(losses.q_loss, f64([[5.125, 1.0]]))
    exactly(losses.value_loss, f64([[0.8, 0.2]]))
    softplus = {x: math.log(1 + math.exp(-x)) for x in (1, 2, 3)}
    exactly(losses.cql_loss, f64([[softplus[1] + softplus[3], softplus[2] + softplus[1]]]))
    exactly(losses.awac_loss, f64([[math.e * math.log(4), math.log(4 / 3) / math.e]]))


def test_each_loss_moves_only_its_own_part():
    arguments = batch(0) | {"mask": torch.ones(2, 4, dtype=torch.bool)}
    logits, values = (arguments[name].requires_grad_() for name in ("logits", "values"))
    q_heads, target_q_heads = (
        [head.requires_grad_() for head in arguments[name]] for name in ("q_heads", "target_q_heads")
    )
    leaves = {"logits": logits, "q": q_heads[0], "target_q": target_q_heads[0], "values": values}
    moved = {}
    for name, loss in ilql_losses(**arguments, **RATES)._asdict().items():
        gradients = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True, retain_graph=True)
        moved[name] = [leaf for leaf, gradient in zip(leaves, gradients, strict=True) if gradient is not None]
    assert moved == {"q_loss": ["q"], "value_loss": ["values"], "cql_loss": ["q"], "awac_loss": ["logits"]}


def cross_entropy(arguments: dict) -> Tensor:
    return torch.nn.functional.cross_entropy(arguments["logits"].mT, arguments["tokens"], reduction="none")


@given(seed=SEEDS)
def test_beta_zero_is_cross_entropy(seed):
    arguments = batch(seed)
    awac_loss = ilql_losses(**arguments, **(RATES | {"beta": 0.0})).awac_loss
    expected = cross_entropy(arguments)
    exactly(awac_loss, torch.where(arguments["mask"], expected, 0))


@given(seed=SEEDS)
def test_a_second_equal_head_doubles_q_and_cql_loss(seed):
    arguments = batch(seed)
    q, target_q = arguments["q_heads"][0], arguments["target_q_heads"][0]
    one = ilql_losses(**(arguments | {"q_heads": [q], "target_q_heads": [target_q]}), **RATES)
    two = ilql_losses(**(arguments | {"q_heads": [q, q], "target_q_heads": [target_q, target_q]}), **RATES)
    exactly(two.q_loss, 2 * one.q_loss)
    exactly(two.cql_loss, 2 * one.cql_loss)
    exactly(two.value_loss, one.value_loss)
    exactly(two.awac_loss, one.awac_loss)


@given(seed=SEEDS)
def test_a_gap_is_as_if_it_were_not_there(seed):
    arguments = batch(seed, rows=1, columns=6)
    kept = arguments["mask"][0]
    if not kept.any():
        return
    with_gaps = ilql_losses(**arguments, **RATES)
    without_gaps = ilql_losses(**each_tensor(arguments, lambda x: x[:, kept]), **RATES)
    for got, expected in zip(with_gaps, without_gaps, strict=True):
        exactly(got[:, kept], expected)
        assert (got[:, ~kept] == 0).all()


@given(seed=SEEDS)
def test_nan_outside_the_mask_is_harmless(seed):
    arguments = batch(seed)
    mask = arguments["mask"]

    def losses_and_gradients(outside: float) -> list[Tensor]:
        def outside_replaced(x: Tensor) -> Tensor:
            if not x.is_floating_point():
                return x
            selected = mask if x.dim() == 2 else mask.unsqueeze(-1)
            return torch.where(selected, x, outside).requires_grad_()

        changed = each_tensor(arguments, outside_replaced)
        changed["tokens"] = torch.where(mask, arguments["tokens"], -100)  # no token at all, and not looked up
        losses = ilql_losses(**changed, **RATES)
        leaves = [changed["logits"], *changed["q_heads"], changed["values"]]
        return [*losses, *torch.autograd.grad(torch.stack(losses).sum(), leaves)]

    for got, expected in zip(losses_and_gradients(NAN), losses_and_gradients(0.0), strict=True):
        exactly(got, expected)


def test_the_weight_of_a_demonstration_does_not_overflow():
    arguments = each_tensor(batch(0), lambda x: x.float() if x.is_floating_point() else x)
    arguments["values"] = arguments["values"] - 1000
    arguments["mask"] = torch.ones(2, 4, dtype=torch.bool)
    awac_loss = ilql_losses(**arguments, **(RATES | {"beta": 100.0})).awac_loss
    expected = math.exp(20) * cross_entropy(arguments)
    assert_close(awac_loss, expected, rtol=1e-5, atol=0)


def test_tokens_may_be_of_any_integer_type():
    arguments = batch(0)
    short = arguments | {"tokens": arguments["tokens"].to(torch.uint8)}
    exactly(ilql_losses(**short, **RATES), ilql_losses(**arguments, **RATES))


def test_gradients_in_float64():
    arguments = batch(3)
    leaves = [arguments["logits"], *arguments["q_heads"], arguments["values"]]
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def weighted(logits: Tensor, q1: Tensor, q2: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        losses = ilql_losses(**(arguments | {"logits": logits, "q_heads": [q1, q2]}), **RATES)
        return losses.q_loss, losses.cql_loss, losses.awac_loss

    # V stands still here: as a target of Q and in the weight of the policy it is data
    still = leaves[3].detach()
    assert torch.autograd.gradcheck(weighted, (*leaves[:3], still))
    assert torch.autograd.gradcheck(
        lambda values: ilql_losses(**(arguments | {"values": values}), **RATES).value_loss, (leaves[3],)
    )


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("q_heads", {"q_heads": [], "target_q_heads": []}),
        ("target_q_heads", {"target_q_heads": [torch.zeros(2, 4, 3)]}),
        ("values", {name: torch.zeros(2, 5) for name in ("values", "tokens", "rewards", "mask")}),
        ("q_head_1", {"q_heads": [torch.zeros(2, 4, 3), torch.zeros(2, 4, 1)]}),
        ("beta", {"beta": -1.0}),
        ("tau", {"tau": 1.0}),
        ("gamma", {"gamma": 1.5}),
    ],
)
def test_what_cannot_work_is_refused(name, changed):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        ilql_losses(**(batch(0) | RATES | changed))


@given(seed=SEEDS)
def test_beta_zero_decodes_the_policy(seed):
    arguments = batch(seed)
    guided = guided_logits(arguments["logits"], arguments["q_heads"][0], arguments["values"], 0.0)
    exactly(guided.softmax(-1), arguments["logits"].softmax(-1))


def test_guided_odds_are_multiplied_by_exp_beta_q():
    """pi odds 1 to 3, Q 1 and 0, beta ln 6: odds 6 to 3, so 2/3. V shifts both by the same."""
    logits, q = f64([[0.0, math.log(3)]]), f64([[1.0, 0.0]])
    guided = guided_logits(logits, q, f64([7.0]), math.log(6))
    exactly(guided.softmax(-1), f64([[2 / 3, 1 / 3]]))
    exactly(guided, f64([[math.log(1 / 4) - 6 * math.log(6), math.log(3 / 4) - 7 * math.log(6)]]))
    with pytest.raises(ValueError, match="beta: expected"):
        guided_logits(logits, q, f64([7.0]), -1.0)


def test_guiding_half_precision_logits_widens_them():
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    q, v = torch.zeros(2, 50), torch.zeros(2)
    assert torch.equal(guided_logits(logits, q, v, 1.0), logits.float().log_softmax(-1))


def test_polyak_moves_a_tenth_of_the_way():
    target, param = [f64([0.0, 10.0]), f64(1.0)], [f64([10.0, 0.0]), f64(2.0)]
    moved = polyak(target, param, 0.1)
    exactly(moved, [f64([1.0, 9.0]), f64(1.1)])


def test_alpha_one_copies_and_alpha_zero_keeps():
    target, param = ([f64(numbers).requires_grad_()] for numbers in ([1.0, 2.0], [3.0, 4.0]))
    copied, kept = polyak(target, param, 1.0), polyak(target, param, 0.0)
    exactly([copied[0], kept[0]], [param[0].detach(), target[0].detach()])
    assert not copied[0].requires_grad and not kept[0].requires_grad
    assert copied[0].data_ptr() != param[0].data_ptr() and kept[0].data_ptr() != target[0].data_ptr()


@given(alpha=st.floats(0, 1), steps=st.integers(0, 20))
def test_k_steps_leave_one_minus_alpha_to_the_k(alpha, steps):
    target = [f64([5.0])]
    for _ in range(steps):
        target = polyak(target, [f64([1.0])], alpha)
    exactly(target[0].item(), 1.0 + 4.0 * (1 - alpha) ** steps)


def test_polyak_wants_pairs():
    with pytest.raises(ValueError, match="params: expected 1 tensors, found 2"):
        polyak([f64([1.0])], [f64([1.0]), f64([1.0])], 0.5)
    with pytest.raises(ValueError, match="param: expected the shape of target_param"):
        polyak([f64([1.0])], [f64([1.0, 2.0])], 0.5)
    with pytest.raises(ValueError, match="alpha: expected 0 .. 1"):
        polyak([f64([1.0])], [f64([1.0])], 1.5)
