"""Losses against torch.nn.functional."""

import pytest
import torch
import torch.nn.functional as F

from fewshot.errors import InvalidParameterError
from fewshot.losses import (
    CLASSIFICATION_LOSSES,
    REGRESSION_LOSSES,
    absolute_error,
    binary_cross_entropy,
    cross_entropy,
    huber,
    poisson,
    resolve_loss,
    squared_error,
    task_loss,
)
from fewshot.tasks import Rows

G = torch.Generator().manual_seed(0)
OUT, TARGET = (3 * torch.randn(7, 2, generator=G, dtype=torch.float64) for _ in range(2))
COUNTS = torch.randint(0, 6, (7, 2), generator=G).double()
LOGITS, CODES = torch.randn(7, 4, generator=G, dtype=torch.float64), torch.randint(0, 4, (7,), generator=G)
WEIGHT = torch.rand(7, generator=G, dtype=torch.float64) + 0.1


def rows(y, weight=WEIGHT, extra=None):
    return Rows(torch.zeros(len(y), 1), y, weight, extra or {})


@pytest.mark.parametrize(
    ("ours", "torchs", "target"),
    [
        (squared_error, lambda o, t: F.mse_loss(o, t, reduction="none"), TARGET),
        (absolute_error, lambda o, t: F.l1_loss(o, t, reduction="none"), TARGET),
        (huber, lambda o, t: F.huber_loss(o, t, reduction="none"), TARGET),
        (lambda o, t: huber(o, t, 2.5), lambda o, t: F.huber_loss(o, t, reduction="none", delta=2.5), TARGET),
        (poisson, lambda o, t: F.poisson_nll_loss(o, t, log_input=True, full=False, reduction="none"), COUNTS),
    ],
    ids=["squared", "absolute", "huber", "huber 2.5", "poisson"],
)
def test_regression_losses_and_their_weighted_mean(ours, torchs, target):
    out = OUT.clone().requires_grad_()
    loss = task_loss(ours, out, rows(target))
    expected = (torchs(out, target).mean(1) * WEIGHT).sum() / WEIGHT.sum()
    torch.testing.assert_close(ours(OUT, target), torchs(OUT, target).mean(1))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, out), torch.autograd.grad(expected, out))


def test_huber_has_both_branches():
    error = (OUT - TARGET).abs()
    assert (error < 1).any() and (error > 2.5).any()


def test_cross_entropy():
    out = LOGITS.clone().requires_grad_()
    loss = task_loss(cross_entropy, out, rows(CODES))
    expected = (F.cross_entropy(out, CODES, reduction="none") * WEIGHT).sum() / WEIGHT.sum()
    torch.testing.assert_close(cross_entropy(LOGITS, CODES), F.cross_entropy(LOGITS, CODES, reduction="none"))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, out), torch.autograd.grad(expected, out))
    torch.testing.assert_close(
        cross_entropy(LOGITS * 1e4, CODES), F.cross_entropy(LOGITS * 1e4, CODES, reduction="none")
    )


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_binary_cross_entropy(scale):
    log_odds, target = LOGITS[:, :1] * scale, CODES % 2
    expected = F.binary_cross_entropy_with_logits(log_odds[:, 0], target.double(), reduction="none")
    torch.testing.assert_close(binary_cross_entropy(log_odds, target), expected)


def test_masked_classes_neither_get_probability_nor_gradient():
    classes = torch.tensor([True, True, False, True]).expand(7, 4)
    codes = torch.tensor([0, 1, 3, 0, 1, 3, 3])
    out = LOGITS.clone().requires_grad_()
    loss = task_loss(cross_entropy, out, rows(codes, extra={"classes": classes}))
    kept = out[:, [0, 1, 3]]
    small = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    expected = (F.cross_entropy(kept, small, reduction="none") * WEIGHT).sum() / WEIGHT.sum()
    torch.testing.assert_close(loss, expected)
    (g,) = torch.autograd.grad(loss, out)
    assert not g[:, 2].any() and bool(g[:, 3].any())
    torch.testing.assert_close(g, torch.autograd.grad(expected, out)[0])


def test_rows_of_weight_zero_do_not_count_whatever_they_hold():
    weight = WEIGHT.clone()
    weight[[1, 4]] = 0
    out = OUT.clone()
    out[[1, 4]] = 1e6
    kept = torch.tensor([0, 2, 3, 5, 6])
    expected = task_loss(squared_error, OUT[kept], rows(TARGET[kept], WEIGHT[kept]))
    torch.testing.assert_close(task_loss(squared_error, out, rows(TARGET, weight)), expected)


def test_without_any_weight_the_loss_and_its_gradient_are_zero():
    for dtype in (torch.float32, torch.float64):
        out = OUT.to(dtype).requires_grad_()
        loss = task_loss(squared_error, out, rows(TARGET.to(dtype), torch.zeros(7, dtype=dtype)))
        assert loss == 0 and not torch.autograd.grad(loss, out)[0].any()


def test_the_scale_of_the_weights_does_not_matter():
    base = task_loss(squared_error, OUT, rows(TARGET))
    for factor in (1e-12, 1e12):
        torch.testing.assert_close(task_loss(squared_error, OUT, rows(TARGET, WEIGHT * factor)), base)


def test_resolve():
    assert resolve_loss(None, REGRESSION_LOSSES) is squared_error
    assert resolve_loss(None, CLASSIFICATION_LOSSES) is cross_entropy
    assert resolve_loss("poisson", REGRESSION_LOSSES) is poisson
    own = lambda output, target: output[:, 0]  # noqa: E731
    assert resolve_loss(own, REGRESSION_LOSSES) is own
    with pytest.raises(InvalidParameterError, match=r"^loss: got 'hinge'; expected one of 'cross_entropy'") as error:
        resolve_loss("hinge", CLASSIFICATION_LOSSES)
    assert "\n" not in str(error.value)
