"""Norm layers by elementary operations against torch's, in values, first and second derivatives."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fewshot.errors import InvalidParameterError
from fewshot.functional import FunctionalModule
from fewshot.losses import squared_error
from fewshot.normalization import (
    ElementaryInstanceNorm,
    ElementaryLayerNorm,
    EpisodeBatchNorm,
    batch_norm_layers,
    episode_statistics,
    replace_norm_layers,
)
from fewshot.tasks import Rows

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def randomised(layer):
    layer = layer.to(F64)
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.add_(0.5 * randn(*p.shape, seed=50 + i))
    return layer


def derivatives(function, layer, x):
    """Value, gradient and a Hessian-vector product in the input and the parameters."""
    names, params = [n for n, _ in layer.named_parameters()], list(layer.parameters())
    leaves = [t.detach().clone().requires_grad_() for t in (x, *params)]
    value = function(dict(zip(names, leaves[1:], strict=True)), leaves[0])
    weights = randn(*value.shape, seed=9)
    g = torch.autograd.grad((weights * value**3).sum(), leaves, create_graph=True)
    along = sum((a * randn(*a.shape, seed=20 + i)).sum() for i, a in enumerate(g))
    return value, g, torch.autograd.grad(along, leaves)


BATCH = {
    "1d": (nn.BatchNorm1d, (6, 3)),
    "1d positions": (nn.BatchNorm1d, (6, 3, 4)),
    "2d": (nn.BatchNorm2d, (4, 3, 2, 5)),
    "3d": (nn.BatchNorm3d, (3, 3, 2, 3, 2)),
}
LAYER = {
    "last": lambda: nn.LayerNorm(5),
    "no bias": lambda: nn.LayerNorm(5, bias=False),
    "not affine": lambda: nn.LayerNorm(5, elementwise_affine=False),
    "two axes": lambda: nn.LayerNorm((4, 5), eps=0.1),
}
INSTANCE = {
    "1d": (nn.InstanceNorm1d, (4, 3, 5)),
    "1d unbatched": (nn.InstanceNorm1d, (3, 5)),
    "2d": (nn.InstanceNorm2d, (2, 3, 4, 3)),
    "2d unbatched": (nn.InstanceNorm2d, (3, 4, 3)),
    "3d": (nn.InstanceNorm3d, (2, 3, 2, 3, 2)),
    "3d unbatched": (nn.InstanceNorm3d, (3, 2, 3, 2)),
}


def agree(layer, x, mask=None):
    replaced = replace_norm_layers(layer)
    assert type(replaced) is not type(layer)

    def by_torch(params, x):
        return functional_call(layer.train(), params, (x,))

    def ours(params, x):
        if mask is None:
            return functional_call(replaced, params, (x,))
        with episode_statistics(mask):
            return functional_call(replaced, params, (x,))

    torch.testing.assert_close(derivatives(ours, layer, x), derivatives(by_torch, layer, x), rtol=1e-8, atol=1e-9)


class TestAgainstTorch:
    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("case", BATCH)
    def test_batch_norm_in_training_mode(self, case, affine):
        kind, shape = BATCH[case]
        agree(randomised(kind(3, affine=affine, eps=0.01)), 2 * randn(*shape) + 3, torch.ones(shape[0]))

    def test_weights_of_rows_do_not_weight_the_statistics(self):
        """Zero or not is all that counts: class weights must not shift the features."""
        agree(randomised(nn.BatchNorm1d(3)), randn(4, 3), torch.tensor([0.5, 2.0, 7.0, 1e-3]))

    @pytest.mark.parametrize("case", LAYER)
    def test_layer_norm(self, case):
        agree(randomised(LAYER[case]()), 2 * randn(3, 4, 5) + 3)

    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("case", INSTANCE)
    def test_instance_norm(self, case, affine):
        kind, shape = INSTANCE[case]
        agree(randomised(kind(3, affine=affine, eps=0.01)), 2 * randn(*shape) + 3)

    def test_the_second_derivatives_are_gradchecked(self):
        layer = replace_norm_layers(randomised(nn.BatchNorm1d(2)))
        x = randn(4, 2).requires_grad_()

        def function(x):
            with episode_statistics(torch.tensor([1.0, 1.0, 1.0, 0.0])):
                return layer(x)

        assert torch.autograd.gradcheck(function, x) and torch.autograd.gradgradcheck(function, x)


class TestBatchStatistics:
    net = staticmethod(
        lambda: randomised(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)))
    )

    @pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4), (6, 3, 4, 2)])
    def test_masked_rows_never_count(self, shape):
        kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
        stock, x = randomised(kind(3)), randn(*shape)
        layer, real = replace_norm_layers(stock), torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
        x[real == 0] = 1e3
        with episode_statistics(real):
            out = layer(x)
        torch.testing.assert_close(out[real > 0], stock.train()(x[real > 0]))

    def test_no_row_at_all_gives_finite_numbers(self):
        with episode_statistics(torch.zeros(3)):
            assert bool(replace_norm_layers(nn.BatchNorm1d(2))(torch.randn(3, 2)).isfinite().all())

    def test_outside_an_episode_the_running_statistics_are_used(self):
        stock = randomised(nn.BatchNorm1d(3))
        for i in range(3):
            stock(5 * randn(8, 3, seed=i) + 2)
        x = randn(4, 3)
        torch.testing.assert_close(replace_norm_layers(stock)(x), stock.eval()(x))

    @pytest.mark.parametrize("affine", [True, False])
    def test_a_layer_that_tracks_nothing_starts_at_the_identity(self, affine):
        stock = nn.BatchNorm1d(3, track_running_stats=False, affine=affine)
        x = torch.randn(4, 3)
        torch.testing.assert_close(replace_norm_layers(stock)(x), x / (1 + 1e-5) ** 0.5)

    def parts(self, module=None):
        functional = FunctionalModule(module or self.net(), squared_error, "all", 2)
        support = Rows(randn(5, 3), randn(5, 2, seed=1), torch.tensor([1.0, 1, 1, 0, 1], dtype=F64))
        query = Rows(randn(4, 3, seed=2) + 2, randn(4, 2, seed=3), torch.ones(4, dtype=F64))
        return functional, support, query

    def test_query_rows_do_not_influence_one_another(self):
        """Each query row's output is the same with any other rows beside it."""
        functional, support, query = self.parts()
        m, c = functional.moving, functional.constant
        together = functional.query_loss(m, {}, c, support, query)
        alone = [
            functional.query_loss(m, {}, c, support, Rows(query.x[[i]], query.y[[i]], query.weight[[i]]))
            for i in range(4)
        ]
        torch.testing.assert_close(together, torch.stack(alone).mean())

    def test_captured_statistics_reproduce_the_query_output(self):
        functional, support, query = self.parts()
        captured = functional.support_statistics(functional.moving, {}, functional.constant, support)
        assert set(captured) == {"1.episode_mean", "1.episode_var"} <= set(functional.constant)
        out = functional.output(functional.moving, {}, {**functional.constant, **captured}, query.x)
        loss = ((out - query.y) ** 2).mean(-1).mean()
        torch.testing.assert_close(
            loss, functional.query_loss(functional.moving, {}, functional.constant, support, query)
        )

    def test_captured_statistics_of_a_norm_at_the_root(self):
        functional, support, _query = self.parts(randomised(nn.BatchNorm1d(3)))
        functional.n_outputs = 3
        captured = functional.support_statistics(functional.moving, {}, functional.constant, support)
        assert set(captured) == {"episode_mean", "episode_var"}
        real = support.x[support.weight > 0]
        torch.testing.assert_close(captured["episode_mean"], real.mean(0))
        torch.testing.assert_close(captured["episode_var"], real.var(0, unbiased=False))

    def test_captured_statistics_of_a_layer_that_is_used_twice(self):
        """Each use sees other numbers, so one mean and variance cannot serve both."""

        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.norm, self.head = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)

            def forward(self, x):
                return self.head(self.norm(torch.tanh(self.first(3 * self.norm(x) + 1))))

        functional, support, query = self.parts(randomised(Twice()))
        try:
            captured = functional.support_statistics(functional.moving, {}, functional.constant, support)
        except InvalidParameterError as error:
            assert "runs twice" in str(error)
            return
        out = functional.output(functional.moving, {}, {**functional.constant, **captured}, query.x)
        loss = ((out - query.y) ** 2).mean(-1).mean()
        torch.testing.assert_close(
            loss, functional.query_loss(functional.moving, {}, functional.constant, support, query)
        )

    def test_captured_statistics_of_a_layer_with_two_names(self):
        """The names must be those under which the buffers are known, or prediction meets two values for one buffer."""

        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                norm = nn.BatchNorm1d(3)
                self.first, self.norm, self.head = nn.Sequential(nn.Linear(3, 3), norm), norm, nn.Linear(3, 2)

            def forward(self, x):
                return self.head(self.first(x))

        functional, support, query = self.parts(randomised(Shared()))
        captured = functional.support_statistics(functional.moving, {}, functional.constant, support)
        assert set(captured) <= set(functional.constant)
        functional.output(functional.moving, {}, {**functional.constant, **captured}, query.x)

    def test_rows_that_a_module_folds_together_are_understood_or_refused(self):
        """Norm over (rows x positions): each row's mask holds for each of its positions."""

        class Folded(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.head = nn.BatchNorm1d(1), nn.Linear(3, 2)

            def forward(self, x):
                return self.head(self.norm(x.reshape(-1, 1)).reshape(x.shape))

        functional, support, _ = self.parts(randomised(Folded()))
        real = support.x[support.weight > 0]
        try:
            captured = functional.support_statistics(functional.moving, {}, functional.constant, support)
        except InvalidParameterError as error:
            assert str(error).startswith("module: ") and "norm" in str(error)
            return
        torch.testing.assert_close(captured["norm.episode_mean"], real.mean().reshape(1))

    def test_the_context_is_left_as_it_was(self):
        layer, x = replace_norm_layers(nn.BatchNorm1d(2)), torch.randn(4, 2)
        outside = layer(x)
        with pytest.raises(KeyError), episode_statistics(torch.ones(4)):
            with episode_statistics(torch.tensor([1.0, 1.0, 0.0, 0.0])):
                inner = layer(x)
            assert not torch.equal(layer(x), inner)
            raise KeyError
        torch.testing.assert_close(layer(x), outside)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.LayerNorm(3)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Linear(3, 3), self.shared), nn.Sequential(self.shared, nn.BatchNorm1d(3))]
        )
        self.images = nn.Sequential(nn.InstanceNorm2d(2, affine=True), nn.GroupNorm(1, 2))
        self.nothing = None
        self.register_module("empty", None)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class TestReplacing:
    def test_the_state_dict_stays_and_the_users_module_is_unchanged(self):
        module = Nested()
        types, state = [type(m) for m in module.modules()], copy.deepcopy(module.state_dict())
        replaced = replace_norm_layers(module)
        assert [type(m) for m in module.modules()] == types
        assert list(replaced.state_dict()) == list(state)
        for k, v in replaced.state_dict().items():
            assert torch.equal(v, state[k]) and v.data_ptr() != module.state_dict()[k].data_ptr()
        assert list(dict(replaced.named_parameters())) == list(dict(module.named_parameters()))
        replaced.load_state_dict(state)

    def test_nothing_of_torchs_is_left_but_what_is_exact(self):
        kinds = {type(m) for m in replace_norm_layers(Nested()).modules()}
        assert not kinds & {nn.LayerNorm, nn.BatchNorm1d, nn.InstanceNorm2d}
        assert {ElementaryLayerNorm, ElementaryInstanceNorm, EpisodeBatchNorm, nn.GroupNorm} <= kinds

    def test_a_shared_layer_stays_one_layer(self):
        replaced = replace_norm_layers(Nested())
        assert replaced.shared is replaced.blocks[0][1] is replaced.blocks[1][0]
        torch.manual_seed(0)
        module = Nested().to(F64)  # in single precision rounding has a say
        x = randn(4, 3)
        with episode_statistics(torch.ones(4, dtype=F64)):
            torch.testing.assert_close(replace_norm_layers(module)(x), module.train()(x))

    @pytest.mark.parametrize("layer", [nn.LayerNorm(3), nn.BatchNorm1d(3), nn.InstanceNorm1d(3)])
    def test_a_norm_at_the_root(self, layer):
        assert type(replace_norm_layers(layer)).__module__ == "fewshot.normalization"

    def test_batch_norms_are_found_and_named(self):
        layers = batch_norm_layers(replace_norm_layers(Nested()))
        assert [layer.name for layer in layers] == ["blocks.1.1"]
        assert batch_norm_layers(replace_norm_layers(nn.Linear(1, 1))) == []

    def test_over_rows_only_is_known_after_a_forward_pass(self):
        flat, image = replace_norm_layers(nn.BatchNorm1d(3)), replace_norm_layers(nn.BatchNorm2d(3))
        flat(torch.zeros(2, 3)), image(torch.zeros(2, 3, 2, 2))
        assert flat.over_rows_only and not image.over_rows_only
        image(torch.zeros(2, 3, 1, 1))  # one position is none to average over
        assert image.over_rows_only

    def test_frozen_norm_weights_stay_frozen(self):
        layer = nn.LayerNorm(3)
        layer.weight.requires_grad_(False)
        assert [p.requires_grad for p in replace_norm_layers(layer).parameters()] == [False, True]
