"""Built-in networks and building from what a user hands in."""

import pytest
import torch
from torch import nn

from fewshot.errors import InvalidParameterError
from fewshot.networks import ACTIVATIONS, BUILDERS, Reshaped, build_module, conv4, linear, mlp


def test_mlp_is_the_literal_function():
    net = mlp(3, 2, hidden=(5, 4), activation="tanh")
    x, p = torch.randn(6, 3), dict(net.named_parameters())
    h = torch.tanh(x @ p["0.weight"].T + p["0.bias"])
    h = torch.tanh(h @ p["2.weight"].T + p["2.bias"])
    torch.testing.assert_close(net(x), h @ p["4.weight"].T + p["4.bias"])
    assert [tuple(v.shape) for v in p.values()] == [(5, 3), (5,), (4, 5), (4,), (2, 4), (2,)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation):
    assert isinstance(mlp(2, 1, activation=activation)[1], ACTIVATIONS[activation])
    # The last layer is followed by none.
    assert isinstance(mlp(2, 1, activation=activation)[-1], nn.Linear)


def test_linear():
    net = linear(3, 2)
    assert len(net) == 1 and net[0].weight.shape == (2, 3)


@pytest.mark.parametrize("hidden", [(0,), (-3,), 5, ("wide",), None])
def test_wrong_widths(hidden):
    with pytest.raises(InvalidParameterError, match="^hidden: got "):
        mlp(2, 1, hidden=hidden)


def test_wrong_activation():
    with pytest.raises(InvalidParameterError, match="^activation: got 'cube'; expected one of relu"):
        mlp(2, 1, activation="cube")


@pytest.mark.parametrize(("shape", "n_in"), [(None, 64), ((1, 28, 28), 784), ((3, 8, 10), 240)])
def test_conv4_takes_flat_rows(shape, n_in):
    net = conv4(n_in, 5, image_shape=shape, channels=4)
    assert net(torch.randn(3, n_in)).shape == (3, 5)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 4 and all(m.out_channels == 4 for m in convolutions)
    assert convolutions[0].in_channels == (shape[0] if shape else 1)


@pytest.mark.parametrize("shape", [None, (1, 5, 5)])
def test_conv4_wrong_shape(shape):
    with pytest.raises(InvalidParameterError, match="^image_shape: got "):
        conv4(24, 5, image_shape=shape)


class TestBuild:
    def test_a_module_is_copied_with_its_weights(self):
        net = linear(3, 1)
        built = build_module(net, 3, 1)
        assert built is not net and torch.equal(built[0].weight, net[0].weight)
        built[0].weight.data.zero_()
        assert bool(net[0].weight.any())

    @pytest.mark.parametrize("module", [None, linear, lambda i, o: nn.Linear(i, o), nn.Linear])
    def test_random_weights_depend_on_the_seed_alone(self, module):
        state = torch.get_rng_state()
        first = build_module(module, 3, 2, seed=4)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(3)
        again, other = build_module(module, 3, 2, seed=4), build_module(module, 3, 2, seed=5)
        for a, b in zip(first.parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b)
        assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))

    def test_factory_gets_inputs_and_outputs(self):
        assert build_module(nn.Linear, 7, 2).weight.shape == (2, 7)

    def test_settings_of_the_built_in_network(self):
        net = build_module(None, 3, 2, hidden=(8,), activation="elu")
        assert net[0].out_features == 8 and isinstance(net[1], nn.ELU)

    def test_input_shape(self):
        seen = []

        class Spy(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(3, 1)

            def forward(self, x):
                seen.append(x)
                return self.head(x.mean(1))

        built = build_module(Spy(), 6, 1, input_shape=(2, 3))
        assert isinstance(built, Reshaped)
        x = torch.arange(24.0).reshape(4, 6)
        assert built(x).shape == (4, 1)
        assert torch.equal(seen[0], x.reshape(4, 2, 3))

    @pytest.mark.parametrize("shape", [(2, 2), (5,), ()])
    def test_wrong_input_shape(self, shape):
        with pytest.raises(InvalidParameterError, match=r"^input_shape: got .* for 6 features"):
            build_module(None, 6, 1, input_shape=shape)

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            (3, "^module: got int"),
            ("mlp", "^module: got str"),
            (lambda i, o: None, "^module: the factory returned NoneType"),
            (lambda i, o: nn.ReLU(), "^module: has no parameters"),
            (nn.Tanh(), "^module: has no parameters"),
        ],
    )
    def test_what_is_no_module(self, module, message):
        with pytest.raises(InvalidParameterError, match=message) as error:
            build_module(module, 3, 1)
        assert "\n" not in str(error.value)

    def test_a_lazy_layer_is_refused_by_name(self):
        """Its weights have no shape yet; without this the error speaks of detach and UninitializedParameter."""
        with pytest.raises(InvalidParameterError, match="^module: "):
            build_module(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1)), 4, 1)

    def test_the_builders_have_their_names(self):
        assert {"mlp": mlp, "linear": linear, "conv4": conv4} == BUILDERS
