"""What no program can be made for is refused in one line that names it, and never computed as something else."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.compiled import reason_against
from fewshot.metagradient import MetaParameters

from ._compare import N_IN, Net, Setting

REFUSED = {
    "sort": lambda self, h: h.sort(1).values,
    "topk": lambda self, h: h.topk(6, 1).values,
    "median": lambda self, h: h - h.median(1, keepdim=True).values,
    "randn": lambda self, h: h + torch.randn(6, dtype=h.dtype),
    "bernoulli": lambda self, h: F.dropout(h),
    "float16": lambda self, h: h + h.detach().half().to(h.dtype),
    "_linalg_solve_ex|linalg_inv_ex": lambda self, h: h @ torch.linalg.inv(self.body.weight),
    "linalg_cholesky_ex.* of several matrices": lambda self, h: (
        h * torch.linalg.cholesky_ex(h[:, :2, None] * h[:, None, :2])[0].sum((1, 2))[:, None]
    ),
    "a constant tensor of 10001 elements": lambda self, h: h * torch.arange(10_001).sum(),
    "convolution over 3 axes": lambda self, h: F.conv3d(h.view(-1, 1, 1, 2, 3), self.kernel).flatten(1),
    "bitwise_and.* of type torch.int64": lambda self, h: h * (h.detach().long() & (h.detach() * 2).long()),
    "avg_pool2d with padding": lambda self, h: F.avg_pool2d(h.view(-1, 1, 2, 3), 2, padding=1).flatten(1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_without_code_is_named(name):
    setting = Setting(lambda: Net(REFUSED[name], kernel=nn.Parameter(torch.randn(1, 1, 1, 1, 1))))
    assert re.search(name, setting.refusal())


def branching(self, h):
    return h if h.sum() > 0 else 2 * h


def item(self, h):
    return h * h.detach().mean().item()


def nonzero(self, h):
    return h * len(h[h > 0])


def looping(self, h):
    while h.abs().max() > 1:
        h = h / 2
    return h


def as_numpy(self, h):
    return h * torch.from_numpy(h.detach().numpy().copy()).mean()


def selected(self, h):
    return h * torch.masked_select(h, h > 0).shape[0]


def equal(self, h):
    return h if torch.equal(h, h.abs()) else 2 * h


def positive(self, h):
    return h * len((h > 0).nonzero())


def unique(self, h):
    return h * len(torch.unique(h.sign()))


@pytest.mark.parametrize(
    "between",
    [branching, item, nonzero, looping, as_numpy, selected, equal, positive, unique],
    ids=lambda f: f.__name__,
)
def test_a_forward_pass_that_depends_on_the_data_is_not_recorded(between):
    """Recorded once, it would repeat for all data what it did with the first."""
    assert Setting(lambda: Net(between)).refusal().startswith("the module cannot be recorded (")


def test_parameters_that_programs_are_not_made_for():
    def meta(*args, **kwargs):
        return MetaParameters({"w": torch.zeros(3, *args, **kwargs)})

    assert reason_against(meta(), random=False) is None
    assert reason_against(meta(dtype=torch.float64), random=False) is None
    assert "random numbers" in reason_against(meta(), random=True)
    assert "torch.float16" in reason_against(meta(dtype=torch.float16), random=False)
    assert "torch.bfloat16" in reason_against(meta(dtype=torch.bfloat16), random=False)
    # No accelerator is needed for what concerns where tensors are.
    assert "'meta'" in reason_against(meta(device="meta"), random=False)


def test_parameters_of_several_types():
    def make():
        net = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 1))
        return net

    setting = Setting(make, Adaptation(1, 0.1))
    setting.functional.moving["0.bias"] = setting.functional.moving["0.bias"].float()
    setting.meta.sizes["log_alpha.0.bias"] = setting.meta.sizes["log_alpha.0.bias"].float()
    assert setting.refusal()


def test_a_forward_pass_that_changes_a_buffer_is_refused():
    """Spectral normalisation counts on its own last estimate: a program, which leaves buffers alone, would go another way."""

    def make():
        return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(N_IN, 6)), nn.Linear(6, 1))

    assert "changes" in Setting(make).refusal()
