"""Inner steps against autograd of the formula they stand for."""

import math

import pytest
import torch
from torch import nn

from fewshot.adaptation import Adaptation, moving_names
from fewshot.errors import InvalidParameterError
from fewshot.inner_optimizers import GradientDescent
from fewshot.step_sizes import StepSizes, effective_rows

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_kish_effective_rows():
    weight = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2], [1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(effective_rows(weight), torch.tensor([2.0, 4.0, 36 / 14, 0.0]))


@pytest.mark.parametrize("factor", [1e-6, 1e6, 1e-12])
def test_effective_rows_do_not_depend_on_the_scale_of_the_weights(factor):
    weight = torch.tensor([[1.0, 2.0, 3.0]])
    torch.testing.assert_close(effective_rows(weight * factor), effective_rows(weight))


SHAPES = {"w": (2, 3), "b": (3,), "t": ()}


def setting(per_parameter, scaled):
    log_alpha = {k: randn(*(s if per_parameter else ()), seed=i) for i, (k, s) in enumerate(SHAPES.items())}
    log_c = {k: randn(seed=10 + i) for i, k in enumerate(SHAPES)} if scaled else None
    params, gradients, cotangent = (
        {k: randn(4, *s, seed=20 + 10 * j + i) for i, (k, s) in enumerate(SHAPES.items())} for j in range(3)
    )
    return log_alpha, log_c, params, gradients, cotangent, torch.tensor([1.0, 2.0, 5.0, 0.0], dtype=F64)


def literal_step(log_alpha, log_c, params, gradients, n):
    """theta'_t = theta_t - exp(log_alpha) * n_t / (n_t + exp(log_c)) * g_t, task by task."""
    out = {}
    for k, p in params.items():
        rows = []
        for t in range(len(p)):
            trust = 1.0 if log_c is None else n[t] / (n[t] + torch.exp(log_c[k]))
            rows.append(p[t] - torch.exp(log_alpha[k]) * trust * gradients[k][t])
        out[k] = torch.stack(rows)
    return out


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("per_parameter", [False, True])
class TestStepSizes:
    def test_step(self, per_parameter, scaled):
        log_alpha, log_c, params, gradients, _, n = setting(per_parameter, scaled)
        got = GradientDescent().step(params, gradients, StepSizes(log_alpha, log_c), n)
        torch.testing.assert_close(got, literal_step(log_alpha, log_c, params, gradients, n), rtol=1e-12, atol=0)

    def test_direction(self, per_parameter, scaled):
        """It is minus the vector-Jacobian product of the step in the gradients."""
        log_alpha, log_c, params, gradients, cotangent, n = setting(per_parameter, scaled)
        gradients = {k: v.requires_grad_() for k, v in gradients.items()}
        new = literal_step(log_alpha, log_c, params, gradients, n)
        along = sum((new[k] * cotangent[k]).sum() for k in new)
        expected = dict(zip(gradients, torch.autograd.grad(along, list(gradients.values())), strict=True))
        got = StepSizes(log_alpha, log_c).direction(cotangent, n)
        for k in expected:
            torch.testing.assert_close(got[k], -expected[k], rtol=1e-12, atol=1e-15)

    def test_derivative(self, per_parameter, scaled):
        log_alpha, log_c, params, gradients, cotangent, n = setting(per_parameter, scaled)
        for v in (*log_alpha.values(), *(log_c or {}).values()):
            v.requires_grad_()
        new = literal_step(log_alpha, log_c, params, gradients, n)
        along = sum((new[k] * cotangent[k]).sum() for k in new)
        alpha, c = StepSizes(log_alpha, log_c).derivative(cotangent, gradients, n)
        expected = torch.autograd.grad(along, list(log_alpha.values()), retain_graph=True)
        for k, e in zip(log_alpha, expected, strict=True):
            torch.testing.assert_close(alpha[k].detach(), e, rtol=1e-11, atol=1e-13)
        if not scaled:
            assert c is None
            return
        for k, e in zip(log_c, torch.autograd.grad(along, list(log_c.values())), strict=True):
            torch.testing.assert_close(c[k].detach(), e, rtol=1e-11, atol=1e-13)


def test_a_task_without_rows_stays_where_it_is():
    log_alpha, log_c, params, gradients, _, n = setting(False, True)
    got = GradientDescent().step(params, gradients, StepSizes(log_alpha, log_c), n)
    assert torch.equal(got["w"][3], params["w"][3]) and not torch.equal(got["w"][0], params["w"][0])


def test_trust_is_one_half_at_c_rows():
    sizes = StepSizes({"w": torch.zeros(())}, {"w": torch.tensor(math.log(4.0))})
    got = sizes.scale("w", torch.tensor([4.0, 12.0]), torch.zeros(2, 3))
    torch.testing.assert_close(got.squeeze(), torch.tensor([0.5, 0.75]))


class TestAdaptation:
    PARAMS = {"w": torch.zeros(2, 3), "b": torch.zeros(3)}

    def test_starting_values(self):
        sizes = Adaptation(3, 0.2, half_trust=5.0).init(self.PARAMS)
        assert {k: tuple(v.shape) for k, v in sizes.items()} == {
            "log_alpha.w": (3,),
            "log_alpha.b": (3,),
            "log_c.w": (),
            "log_c.b": (),
        }
        torch.testing.assert_close(sizes["log_alpha.w"].exp(), torch.full((3,), 0.2))
        torch.testing.assert_close(sizes["log_c.b"].exp(), torch.tensor(5.0))
        sizes = Adaptation(3, 0.2, "parameter", None).init(self.PARAMS)
        assert {k: tuple(v.shape) for k, v in sizes.items()} == {"log_alpha.w": (3, 2, 3), "log_alpha.b": (3, 3)}

    def test_fixed_steps_are_the_papers_and_are_not_scaled(self):
        adaptation = Adaptation(2, 0.2, False, half_trust=4.0)
        assert not adaptation.learns and not adaptation.scales
        step = adaptation.at(adaptation.init(self.PARAMS), 1)
        assert step.log_c is None
        torch.testing.assert_close(step.scale("w", torch.ones(1), torch.zeros(1, 2, 3)), torch.tensor(0.2))

    def test_steps_past_the_last_learned_one_use_that_ones(self):
        adaptation = Adaptation(3, 0.2)
        sizes = {
            k: torch.arange(3.0) if k.startswith("log_alpha") else v for k, v in adaptation.init(self.PARAMS).items()
        }
        assert [float(adaptation.at(sizes, k).log_alpha["w"]) for k in (0, 1, 2, 3, 9)] == [0, 1, 2, 2, 2]

    def test_collecting_puts_each_steps_derivative_in_its_place_and_sums_c(self):
        adaptation = Adaptation(2, 0.2)
        sizes = adaptation.init({"w": torch.zeros(2)})
        per_step = [
            {"log_alpha.w": torch.tensor(float(k + 1)), "log_c.w": torch.tensor(10.0 * (k + 1))} for k in range(3)
        ]
        out = adaptation.collect(per_step, sizes)
        assert out["log_alpha.w"].tolist() == [1.0, 5.0] and float(out["log_c.w"]) == 60.0

    @pytest.mark.parametrize(
        ("setting", "name"),
        [
            ({"inner_steps": -1}, "inner_steps"),
            ({"inner_steps": 1.5}, "inner_steps"),
            ({"inner_steps": True}, "inner_steps"),
            ({"inner_lr": 0}, "inner_lr"),
            ({"inner_lr": float("nan")}, "inner_lr"),
            ({"inner_lr": math.inf}, "inner_lr"),
            ({"inner_lr": "fast"}, "inner_lr"),
            ({"learn_step_sizes": "layer"}, "learn_step_sizes"),
            ({"optimizer": "rmsprop"}, "inner_optimizer"),
            ({"proximal": -1.0}, "proximal"),
            ({"proximal": "strong"}, "proximal"),
        ],
    )
    def test_wrong_settings(self, setting, name):
        with pytest.raises(InvalidParameterError, match=f"^{name}: got ") as error:
            Adaptation(**setting)
        assert "\n" not in str(error.value)

    def test_numpys_numbers_are_numbers(self):
        """A grid search hands in numpy's whole numbers."""
        import numpy as np

        assert Adaptation(np.int64(3), np.float64(0.1)).inner_steps == 3
        assert Adaptation(3, np.float32(0.5)).inner_lr == 0.5


class TestMovingNames:
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    everything = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]

    @pytest.mark.parametrize(
        ("adapted", "expected"),
        [
            ("all", everything),
            ("head", ["2.weight", "2.bias"]),
            ("body", everything[:4]),
            (["*.bias"], ["0.bias", "1.bias", "2.bias"]),
            (("1.*", "0.weight"), ["0.weight", "1.weight", "1.bias"]),
        ],
    )
    def test_selections(self, adapted, expected):
        assert moving_names(self.net, adapted) == expected

    def test_frozen_parameters_never_move_and_the_head_is_the_last_trainable_layer(self):
        net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))
        for p in (*net[0].parameters(), *net[2].parameters()):
            p.requires_grad_(False)
        assert moving_names(net, "all") == ["1.weight", "1.bias"] == moving_names(net, "head")

    @pytest.mark.parametrize("adapted", ["tail", None, 3, [1], {"all"}])
    def test_unknown_selections(self, adapted):
        with pytest.raises(InvalidParameterError, match="^adapted: got "):
            moving_names(self.net, adapted)

    @pytest.mark.parametrize(("net", "adapted"), [(nn.Linear(2, 1), "body"), (net, ["9.*"])])
    def test_nothing_would_move(self, net, adapted):
        with pytest.raises(InvalidParameterError, match=r"^adapted: .* selects none") as error:
            moving_names(net, adapted)
        assert "\n" not in str(error.value)
