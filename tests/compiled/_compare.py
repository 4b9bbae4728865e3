"""Programs beside kernels: the same batch through both."""

import torch
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.compiled import Library, Request, library_for
from fewshot.heads import make_functional
from fewshot.kernels import LoopKernels
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, expand, inner_loop, meta_gradient, of_network
from fewshot.tasks import Rows

F64 = torch.float64
N_IN = 6
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}


class Net(nn.Module):
    """A function of some features between two linear layers, so that it is differentiated in its input too."""

    def __init__(self, between, n_in=N_IN, width=6, n_out=1, **members):
        super().__init__()
        self.body = nn.Linear(n_in, width)
        for name, member in members.items():
            if isinstance(member, torch.Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)
        self.between = between
        with torch.no_grad():
            width_after = between(self, torch.ones(3, width)).shape[1]
        self.head = nn.Linear(width_after, n_out)

    def forward(self, x):
        return self.head(self.between(self, self.body(x)))


def seeded(make):
    """Make a module whose weights are always the same, and affine ones away from one and zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make()
        with torch.no_grad():
            for p in module.parameters():
                if p.ndim == 1:
                    p.add_(0.3 * torch.randn_like(p))
    return module


class Setting:
    """A network, where its meta-learning stands, and a batch of tasks.

    Rows differ from step to step; one row of the second task is padding, filled with what would be noticed.
    """

    def __init__(
        self,
        make,
        adaptation=None,
        *,
        order="exact",
        dtype=F64,
        row_loss=squared_error,
        n_in=N_IN,
        n_out=1,
        n_tasks=3,
        rows=(4, 5),
        target="real",
        extra=None,
        padded=True,
        empty_query=False,
        batch_norm="episode",
        objective=None,
    ):
        self.adaptation = adaptation or Adaptation(2, 0.1)
        self.order, self.dtype, self.n_out, self.extra, self.target = order, dtype, n_out, extra, target
        self.n_in = n_in
        module = seeded(make).to(dtype)
        self.functional = make_functional(
            module,
            row_loss,
            self.adaptation.adapted,
            n_out,
            batch_norm=batch_norm,
            inner_steps=self.adaptation.inner_steps,
        )
        self.objective = objective or {}
        self.g = torch.Generator().manual_seed(1)
        sizes = {
            k: (v + 0.3 * torch.randn(v.shape, generator=self.g)).to(dtype)
            for k, v in self.adaptation.init(self.functional.moving).items()
        }
        self.meta = MetaParameters(self.functional.moving, self.functional.shared, sizes)
        self.supports = [self.draw(n_tasks, rows[0], padded) for _ in range(max(self.adaptation.inner_steps, 1))]
        self.query = self.draw(n_tasks, rows[1], padded)
        if empty_query:
            self.query.weight[0] = 0

    def draw(self, n_tasks, n, padded=True):
        x = torch.randn(n_tasks, n, self.n_in, generator=self.g).to(self.dtype)
        weight = (torch.rand(n_tasks, n, generator=self.g) + 0.5).to(self.dtype)
        if self.target == "real":
            y = torch.randn(n_tasks, n, self.n_out, generator=self.g).to(self.dtype)
        elif self.target == "count":
            y = torch.randint(0, 4, (n_tasks, n, self.n_out), generator=self.g).to(self.dtype)
        else:
            y = torch.randint(0, self.target, (n_tasks, n), generator=self.g)
        if padded and n > 1 and n_tasks > 1:
            x[1, -1], weight[1, -1] = 7.5, 0
        return Rows(x, y, weight, {} if self.extra is None else self.extra(n_tasks, n))

    @property
    def groups(self):
        meta = self.meta
        constant = self.functional.constant
        moving = self.adaptation.rule.begin(meta.moving)
        return {"moving": moving, "shared": meta.shared, "constant": constant, "sizes": meta.sizes}

    def request(self, kind=None, query="as it is"):
        query = self.query if query == "as it is" else query
        return Request(self.functional, self.adaptation, self.meta, self.supports[0], query, kind or self.order)

    def library(self, kind=None, query="as it is"):
        found = library_for(self.request(kind, query), wait=None)
        assert isinstance(found, Library), found
        return found

    def refusal(self):
        found = library_for(self.request(), wait=None)
        assert isinstance(found, str), "the module was not refused"
        assert "\n" not in found
        return found

    def expected(self):
        kernels = LoopKernels(self.functional)
        return meta_gradient(
            kernels, self.adaptation, self.meta, self.supports, self.query, order=self.order, **self.objective
        )

    def check(self):
        """Compare the meta-gradient; every tensor has to have a derivative that is not all zero somewhere."""
        expected = self.expected()
        steps = self.adaptation.inner_steps
        groups = self.groups
        loss, share, vector = self.library().meta_gradient(groups, self.supports, self.query, steps, **self.objective)
        vector = self.adaptation.rule.fold(groups["moving"], vector)
        tolerance = TOLERANCE[self.dtype]
        assert torch.isfinite(expected.vector).all() and expected.vector.any(), "nothing to compare"
        torch.testing.assert_close(share, expected.share)
        torch.testing.assert_close(loss, expected.loss, rtol=tolerance, atol=tolerance)
        got, first = vector[: len(expected.vector)], 0
        scale = float(expected.vector.abs().max())
        for name, value in expected.gradient.flat().items():
            part = got[first : first + value.numel()].reshape(value.shape)
            first += value.numel()
            error = float((part - value).abs().max()) if value.numel() else 0.0
            assert error <= tolerance * max(float(value.abs().max()), 1e-2 * scale), (name, error)
        return expected

    def check_adapting(self, query="as it is"):
        """Compare adapted parameters, the support's losses on the way, and the loss after."""
        query = self.query if query == "as it is" else query
        steps, tolerance = self.adaptation.inner_steps, TOLERANCE[self.dtype]
        library = self.library("adapt", query)
        moving, losses, loss = library.adapt(self.groups, self.supports, query, steps, keep=True)
        kernels = LoopKernels(self.functional)
        path, before = inner_loop(kernels, self.adaptation, self.meta, self.supports[:steps], 0, self.start())
        assert losses.shape == (steps, len(self.supports[0].x))
        for got, expected in zip(losses, before, strict=True):
            torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
        for name, expected in path[-1].items():
            torch.testing.assert_close(moving[name], expected, rtol=tolerance, atol=tolerance)
        judged = self.supports[-1] if query is None else query
        adapted = of_network(path[-1])
        after = kernels.query_gradient(adapted, self.meta.shared, self.supports[-1], judged, 0, steps)[0]
        torch.testing.assert_close(loss, after, rtol=tolerance, atol=tolerance)
        nothing, _, again = library.adapt(self.groups, self.supports, query, steps, keep=False)
        assert not nothing and torch.equal(again, loss)

    def start(self):
        n_tasks = len(self.supports[0].x)
        return expand(self.adaptation.rule.begin(self.meta.moving), n_tasks)
