"""Layouts and types that once gave wrong numbers: overlapping views, axes of one element, numbers that change type."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.losses import squared_error

from ._compare import Net, Setting

pytestmark = pytest.mark.usefixtures("compiler")


def overlapping(self, h):
    u = torch.sin(h).unfold(1, 4, 3)
    v = torch.tanh(u * self.scale)
    return (v * v + v * u).flatten(1)


def one_by_one(self, h):
    return F.conv2d(h.reshape(-1, 2, 3, 1), self.kernel.permute(2, 3, 0, 1)).flatten(1)


def numbers(self, h):
    return h * torch.full_like(h, 1.7).long() + h * torch.full_like(h, 0.5).bool()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Net(overlapping, width=12, scale=nn.Parameter(torch.tensor(0.7))),
        lambda: Net(one_by_one, kernel=nn.Parameter(torch.linspace(-1, 1, 6).reshape(1, 1, 3, 2))),
        lambda: Net(numbers),
    ],
    ids=["overlapping", "one by one", "numbers"],
)
def test_networks(make):
    Setting(make).check()


def test_a_part_of_a_part_by_strides_is_refused():
    def parts(self, h):
        return torch.as_strided(h.chunk(2, 1)[1], (h.shape[0], 2), (6, 1), 3)

    assert "as_strided" in Setting(lambda: Net(parts)).refusal()


def test_a_loss_of_another_type_is_refused():
    """A program would write it into memory made for the type of the parameters."""
    setting = Setting(
        lambda: nn.Linear(6, 1),
        Adaptation(1, 0.1),
        dtype=torch.float32,
        row_loss=lambda o, t: squared_error(o, t).double(),
    )
    assert "a loss of type torch.float64" in setting.refusal()


def test_weights_of_another_type_are_refused():
    """A program reads them as the type of the parameters."""
    setting = Setting(lambda: nn.Linear(6, 1), Adaptation(1, 0.1))
    setting.query = setting.query._replace(weight=setting.query.weight.float())
    assert "row weights of another type" in setting.refusal()
