"""A network as pure functions: groups of tensors, losses, and the settings of torch that are borrowed."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend

from fewshot.errors import InvalidParameterError
from fewshot.functional import FunctionalModule, differentiable_forward
from fewshot.losses import squared_error
from fewshot.tasks import Rows


def net():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    module[0].weight.requires_grad_(False)
    return module


def test_groups():
    f = FunctionalModule(net(), squared_error, "head", 1)
    assert list(f.moving) == ["2.weight", "2.bias"]
    assert list(f.shared) == ["0.bias", "1.weight", "1.bias"]
    assert {"0.weight", "1.running_mean", "1.episode_mean", "1.episode_var"} <= set(f.constant)
    assert (
        f.uses_batch_statistics and not FunctionalModule(nn.Linear(2, 1), squared_error, "all", 1).uses_batch_statistics
    )


def test_the_users_module_is_neither_shared_nor_changed():
    module = net()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    f = FunctionalModule(module, squared_error, "all", 1)
    for v in (*f.moving.values(), *f.constant.values()):
        v.zero_() if v.is_floating_point() else None
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert [p.requires_grad for p in module.parameters()] == [False, True, True, True, True, True]
    assert isinstance(module[1], nn.BatchNorm1d)


def test_tensors_do_not_require_gradients():
    f = FunctionalModule(net(), squared_error, "all", 1)
    assert not any(v.requires_grad for v in (*f.moving.values(), *f.shared.values(), *f.constant.values()))


class Wrong(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.p, self.answer = nn.Parameter(torch.ones(1)), answer

    def forward(self, x):
        return self.answer(x[:, :1] * self.p)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda o: o.expand(-1, 3), r"\(4, 3\)"),
        (lambda o: o.mean(0), r"\(1,?"),
        (lambda o: (o, o), "tuple"),
        (lambda o: None, "NoneType"),
        (lambda o: {"logits": o}, "dict"),
        (lambda o: o[..., None], r"\(4, 1, 1\)"),
    ],
)
def test_an_output_of_the_wrong_shape(answer, got):
    f = FunctionalModule(Wrong(answer), squared_error, "all", 1)
    with pytest.raises(
        InvalidParameterError, match=rf"^module: returned {got}.* for 4 rows; expected \(4, 1\)"
    ) as error:
        f.output(f.moving, {}, {}, torch.ones(4, 2))
    assert "\n" not in str(error.value)


def test_one_output_may_come_without_its_axis():
    f = FunctionalModule(Wrong(lambda o: o[:, 0]), squared_error, "all", 1)
    assert f.output(f.moving, {}, {}, torch.ones(4, 2)).shape == (4, 1)
    f = FunctionalModule(Wrong(lambda o: o[:, 0]), squared_error, "all", 2)
    with pytest.raises(InvalidParameterError):
        f.output(f.moving, {}, {}, torch.ones(4, 2))


def test_support_and_query_loss():
    f = FunctionalModule(nn.Linear(2, 1), squared_error, "all", 1)
    rows = Rows(torch.randn(4, 2), torch.randn(4, 1), torch.tensor([1.0, 2.0, 0.0, 1.0]))
    other = rows._replace(x=rows.x + 1)
    error = (rows.x @ f.moving["weight"].T + f.moving["bias"] - rows.y).squeeze() ** 2
    expected = (error * rows.weight).sum() / 4
    torch.testing.assert_close(f.support_loss(f.moving, {}, {}, rows), expected)
    torch.testing.assert_close(f.query_loss(f.moving, {}, {}, other, rows), expected)
    assert f.support_statistics(f.moving, {}, {}, rows) == {}


@pytest.mark.parametrize(
    ("layer", "random"), [(nn.Dropout(0.5), True), (nn.Identity(), False), (nn.Dropout(0.0), False)]
)
def test_randomness_is_detected_without_drawing(layer, random):
    f = FunctionalModule(nn.Sequential(nn.Linear(2, 4), layer, nn.Linear(4, 1)), squared_error, "all", 1)
    state = torch.get_rng_state()
    assert f.is_random(torch.randn(3, 2, generator=torch.Generator().manual_seed(0))) is random
    assert torch.equal(torch.get_rng_state(), state)


def test_training_mode_is_switched_everywhere():
    f = FunctionalModule(nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 1)), squared_error, "all", 1)
    x = torch.randn(50, 2)
    f.skeleton.train(False)
    torch.testing.assert_close(f.output(f.moving, {}, {}, x), f.output(f.moving, {}, {}, x))
    f.skeleton.train(True)
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(f.output(f.moving, {}, {}, x), f.output(f.moving, {}, {}, x))


class Settings:
    @staticmethod
    def read():
        b = torch.backends
        return (
            b.mha.get_fastpath_enabled(),
            b.cuda.flash_sdp_enabled(),
            b.cuda.mem_efficient_sdp_enabled(),
            b.cuda.math_sdp_enabled(),
            b.cuda.cudnn_sdp_enabled(),
        )


@pytest.mark.parametrize("fast", [True, False])
def test_attention_settings_are_borrowed_and_given_back(fast):
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        before = Settings.read()
        with pytest.raises(KeyError), differentiable_forward():
            assert Settings.read() == (False, False, False, True, False)
            with torch.nn.attention.sdpa_kernel(SDPBackend.MATH), differentiable_forward():
                pass
            assert Settings.read() == (False, False, False, True, False)
            raise KeyError
        assert Settings.read() == before
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
