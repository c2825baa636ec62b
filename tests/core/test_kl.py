from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from components.core.kl import best_of_n_kl, kl_estimate, next_kl_coef
from components.errors import TrainingError

f64 = partial(torch.tensor, dtype=torch.float64)
exactly = partial(assert_close, rtol=0, atol=1e-12)

POLICY = [0.5, 0.3, 0.15, 0.05]
REFERENCE = [0.2, 0.3, 0.4, 0.1]


def exact_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def log(probabilities: list[float]) -> torch.Tensor:
    return f64([[math.log(p) for p in probabilities]])


def expected_gradient(estimator: str, logits: torch.Tensor) -> torch.Tensor:
    """E over tokens from the policy of the gradient of the estimate, by enumeration of the vocabulary."""
    logprobs = logits.log_softmax(0).unsqueeze(0)
    expectation = (logprobs.detach().exp() * kl_estimate(logprobs, log(REFERENCE), estimator)).sum()
    return torch.autograd.grad(expectation, logits)[0]


def test_estimates_of_three_tokens():
    """d = -.2, .6, 0: k2 = d^2/2; k3 = e^.2 - 1.2 = .021403, e^-.6 - .4 = .148812, 0."""
    logprobs, ref_logprobs = f64([[-1.2, -0.3, -2.5]]), f64([[-1.0, -0.9, -2.5]])
    exactly(kl_estimate(logprobs, ref_logprobs, "k1"), f64([[-0.2, 0.6, 0.0]]))
    exactly(kl_estimate(logprobs, ref_logprobs, "k2"), f64([[0.02, 0.18, 0.0]]))
    exactly(
        kl_estimate(logprobs, ref_logprobs, "k3"),
        f64([[0.021402758160170, 0.148811636094026, 0.0]]),
    )


def test_k1_and_k3_are_unbiased():
    for estimator in ("k1", "k3"):
        estimate = kl_estimate(log(POLICY), log(REFERENCE), estimator)
        exactly((f64([POLICY]) * estimate).sum().item(), exact_kl(POLICY, REFERENCE))
    biased = (f64([POLICY]) * kl_estimate(log(POLICY), log(REFERENCE), "k2")).sum().item()
    assert abs(biased - exact_kl(POLICY, REFERENCE)) > 0.01


@given(
    logprobs=st.lists(st.floats(-30, 0), min_size=3, max_size=3),
    ref_logprobs=st.lists(st.floats(-30, 0), min_size=3, max_size=3),
)
def test_k3_is_never_negative(logprobs, ref_logprobs):
    for estimator in ("k2", "k3"):
        estimate = kl_estimate(f64([logprobs]), f64([ref_logprobs]), estimator)
        assert (estimate >= -1e-15).all() and estimate.isfinite().all()


def test_k1_may_be_negative_for_a_token():
    assert kl_estimate(f64([[-2.0]]), f64([[-1.0]]), "k1").item() == -1.0


def test_k3_does_not_overflow():
    """A token that the reference finds e^500 times likelier: as at e^20, e^20 - 1 - 20, not infinity."""
    for dtype in (torch.float32, torch.float64):
        estimate = kl_estimate(torch.tensor([[-500.0]], dtype=dtype), torch.tensor([[0.0]], dtype=dtype), "k3")
        assert_close(estimate.item(), math.exp(20) - 21, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("difference", "gradient"),
    [(-19.9, 1 - math.exp(19.9)), (-20.1, 0.0), (-500.0, 0.0), (19.9, 1 - math.exp(-19.9)), (20.1, 0.0)],
)
def test_gradient_of_k3_is_never_of_the_wrong_sign(difference, gradient):
    """d/dd (e^-d - 1 + d) = 1 - e^-d: negative below the reference, positive above, and 0 where d is held."""
    logprobs = f64([[difference]]).requires_grad_()
    kl_estimate(logprobs, f64([[0.0]]), "k3").sum().backward()
    assert_close(logprobs.grad.item(), gradient, rtol=1e-12, atol=0)


def test_gradient_of_k1_in_the_loss_is_not_that_of_kl():
    logits = log(POLICY)[0].clone().requires_grad_()
    exactly(expected_gradient("k1", logits), torch.zeros(4, dtype=torch.float64))


def test_gradient_of_k2_in_the_loss_is_that_of_kl():
    """dKL(pi, ref)/dz_i = pi_i (log pi_i/ref_i - KL), by hand."""
    logits = log(POLICY)[0].clone().requires_grad_()
    kl = exact_kl(POLICY, REFERENCE)
    by_hand = f64([p * (math.log(p / q) - kl) for p, q in zip(POLICY, REFERENCE, strict=True)])
    exactly(expected_gradient("k2", logits), by_hand)
    assert by_hand.abs().max() > 0.1


def test_gradient_of_k3_in_the_loss_is_that_of_the_other_kl():
    """dKL(ref, pi)/dz_i = pi_i - ref_i, by hand."""
    logits = log(POLICY)[0].clone().requires_grad_()
    exactly(expected_gradient("k3", logits), f64([p - q for p, q in zip(POLICY, REFERENCE, strict=True)]))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_gradients_in_float64(estimator):
    generator = torch.Generator().manual_seed(0)
    logprobs, ref_logprobs = (
        torch.randn(2, 3, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2)
    )
    assert torch.autograd.gradcheck(lambda x, y: kl_estimate(x, y, estimator), (logprobs, ref_logprobs))


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="estimator: expected k1, k2 or k3, found 'k4'"):
        kl_estimate(torch.zeros(1, 1), torch.zeros(1, 1), "k4")


def test_three_steps_of_the_controller():
    """KL 12, 3, 6.3 at a target of 6: errors capped to .2 and -.2, then .05; each times 256 / 10000.

    .2 * 1.00512 = .201024;  * .99488 = .19999475712;  * 1.00128 = .200250750409...
    """
    kl_coef, seen = 0.2, []
    for kl in (12.0, 3.0, 6.3):
        kl_coef = next_kl_coef(kl_coef, kl, target_kl=6.0, horizon=10_000, batch_size=256)
        seen.append(kl_coef)
    exactly(seen, [0.201024, 0.19999475712, 0.2002507504091136])


@given(kl_coef=st.floats(0, 10), target_kl=st.floats(0.01, 100), batch_size=st.integers(1, 1000))
def test_on_target_the_coefficient_stays(kl_coef, target_kl, batch_size):
    assert next_kl_coef(kl_coef, target_kl, target_kl=target_kl, horizon=10_000, batch_size=batch_size) == kl_coef


@pytest.mark.parametrize(("kl", "factor"), [(1e6, 1.002), (7.2, 1.002), (0.0, 0.998), (-3.0, 0.998), (4.8, 0.998)])
def test_far_from_the_target_the_step_is_capped(kl, factor):
    exactly(next_kl_coef(0.5, kl, target_kl=6.0, horizon=10_000, batch_size=100), 0.5 * factor)


def test_inside_of_the_cap_the_step_is_proportional():
    """KL of 6.6 nats per SEQUENCE at a target of 6 is an error of .1; .1 * 1000 / 10000 = 1 %."""
    exactly(next_kl_coef(0.5, 6.6, target_kl=6.0, horizon=10_000, batch_size=1000), 0.505)
    exactly(next_kl_coef(0.5, 5.4, target_kl=6.0, horizon=10_000, batch_size=1000), 0.495)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("kl_coef", {"kl_coef": -0.1}),
        ("target_kl", {"target_kl": 0.0}),
        ("batch_size", {"batch_size": 0}),
        ("horizon", {"horizon": 0.0}),
        ("horizon", {"horizon": 20.0}),
        ("kl_coef", {"kl_coef": float("nan")}),
    ],
)
def test_a_controller_that_cannot_work_is_refused(name, changed):
    arguments = {"kl_coef": 0.2, "kl": 6.0, "target_kl": 6.0, "horizon": 10_000, "batch_size": 100} | changed
    with pytest.raises(ValueError, match=f"{name}: expected"):
        next_kl_coef(**arguments)


@pytest.mark.parametrize("kl", [float("nan"), float("inf")])
def test_a_kl_that_is_not_finite_does_not_move_the_coefficient(kl):
    with pytest.raises(TrainingError, match="the KL of the batch is not finite"):
        next_kl_coef(0.2, kl, target_kl=6.0, horizon=10_000, batch_size=100)


def exact_kl_of_the_best(probabilities: list[float], n: int) -> float:
    """Outcomes from the worst to the best: the best of n is at most outcome i with probability F_i ** n."""
    at_most, best, below = 0.0, [], 0.0
    for probability in probabilities:
        at_most += probability
        best.append(at_most**n - below**n)
        below = at_most
    return math.fsum(q * math.log(q / p) for p, q in zip(probabilities, best, strict=True) if q > 0)


def test_best_of_n_as_worked_by_hand():
    """log 2 - 1/2, and log 4 - 3/4."""
    assert best_of_n_kl(2) == pytest.approx(0.193147, abs=1e-6)
    assert best_of_n_kl(4) == pytest.approx(0.636294, abs=1e-6)


def test_best_of_one_is_no_choice():
    assert best_of_n_kl(1) == 0.0


@pytest.mark.parametrize("n", [2, 4, 16])
def test_many_distinct_scores_reach_the_bound(n):
    assert exact_kl_of_the_best([1 / 50_000] * 50_000, n) == pytest.approx(best_of_n_kl(n), abs=1e-3)


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8),
    n=st.integers(1, 32),
)
def test_ties_stay_below_the_bound(weights, n):
    probabilities = [weight / math.fsum(weights) for weight in weights]
    assert exact_kl_of_the_best(probabilities, n) <= best_of_n_kl(n) + 1e-9


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match="n: expected at least one sample"):
        best_of_n_kl(0)
