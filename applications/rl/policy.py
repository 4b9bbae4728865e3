"""The policy estimator: learn across environments, adapt to one, act.

The same three verbs as elsewhere: ``fit_meta`` learns an initial policy over a family of environments, ``adapt`` returns a new
policy after a few policy-gradient steps on a few episodes of one environment, ``predict`` acts.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator

from fewshot.errors import DivergenceError, InvalidDataError, InvalidParameterError, NotFittedError
from fewshot.kernels import LoopKernels
from fewshot.metagradient import MetaParameters, expand
from fewshot.step_sizes import Tensors
from fewshot.threads import threads_for
from fewshot.training.callbacks import CallbackSupportMixin, progress_bar, report_rounds, with_callbacks

from .adaptation_report import AdaptationReport
from .checks import check_count
from .environments.protocols import Family
from .environments.sources import as_family, as_one_task
from .environments.spaces import check_spaces, differ, encode_observations, to_actions
from .learning.actor import NotFiniteError, check_parameters
from .learning.budget import Budget
from .learning.learner import LearnerSettings
from .learning.networks import PolicyNetwork
from .learning.policy_settings import PolicySettings
from .learning.rollouts import ActionFilter
from .learning.training import Training
from .learning.trajectories import Trajectories
from .recorded import RecordedEpisodes

__all__ = ["MAMLPolicy"]

logger = logging.getLogger("fewshot")

MOST_APART = math.log(2)  # median difference of log-probabilities at which episodes are those of another policy
# Branches of the random numbers of one seed.
FIT, ADAPT, EVALUATE, RECORD, ACT = range(5)
APART = 0x5EED  # from what users draw from the bare seed, or from generators that they spawn from it


class MAMLPolicy(CallbackSupportMixin, BaseEstimator):
    """Policy that adapts to a new environment from a few episodes.

    Parameters
    ----------
    module : torch.nn.Module, callable or None, default=None
        Network from observations to means (Box) or unnormalised log-probabilities (Discrete) of actions, or a callable
        ``(n_observed, n_outputs) -> torch.nn.Module``; None: an MLP.
    hidden : sequence of int, default=(64, 64)
        Widths of its hidden layers.
    activation : str, default="tanh"
        Between them.
    log_std : float, default=-0.5
        Starting value of the logarithm of the standard deviations of a Box's actions, in units in which its finite bounds are
        -1 and 1; above -6.9. It is learned and adapted like all parameters.
    inner_steps : int, default=1
        Policy-gradient steps that meta-training looks ahead.
    inner_lr : float, default=None
        Step size, or its starting value where it is learned. None: such that the first adaptation moves the untrained policy by a
        Kullback-Leibler divergence of 0.01, whatever the noise of its actions and the size of its network.
    learn_step_sizes : {None, False, "tensor", "parameter"}, default=None
        Whether step sizes are learned; None: one for each tensor and step.
    later_step_factor : float, default=0.5
        Part of the last step size that steps past `inner_steps` are taken with. A policy that has found its way needs smaller
        steps than one that has not.
    surrogate : {"lvc", "dice", "reinforce"}, default="lvc"
        Loss whose derivatives are the policy gradients, see :mod:`fewshot.applications.rl.learning.surrogates`.
    order : {"exact", "first"}, default="exact"
        Order of the meta-gradient.
    outer : {"trpo", "ppo", "adam"}, default="trpo"
        What moves the initial parameters: a step inside a trust region (MAML), several steps along a clipped surrogate (ProMP), or
        one step of Adam. See :mod:`fewshot.applications.rl.learning.outer_steps`.
    max_kl : float, default=0.02
        With "trpo" and "ppo": bound of the mean divergence of the adapted policies in an iteration, measured on five of its tasks;
        with "ppo" of the initial ones, too.
    clip : float, default=0.2
        With "ppo": probability ratios are clipped to 1 - clip and 1 + clip.
    outer_lr : float, default=0.01
        Learning rate of "adam", and of "ppo" to start with; with "trpo" of the step sizes alone.
    tasks_per_batch : int, default=20
        Environments of an iteration.
    episodes : int, default=20
        Episodes in each of them for each inner step, and for the query.
    discount : float, default=0.99
        Discount of a time step.
    gae_lambda : float, default=0.97
        Of generalised advantage estimation: 0 trusts the baseline, 1 the returns.
    normalise_observations : bool, default=True
        Standardise observations of a Box by the mean and deviation that the untrained policy met.
    engine : {"auto", "loop", "vectorized", "compiled"}, default="auto"
        What takes meta-gradients, see :class:`fewshot.MAMLRegressor`. Acting and adapting many tasks at once are always vectorised,
        so a network of one's own must not draw random numbers or decide by the values that it sees.
    warm_start : bool, default=False
        Go on with an interrupted, or from an earlier, training: with `max_kl`, `outer_lr` and the sizes of batches as they are now,
        and all else as it was. A policy from a file, a copy or an adapted one goes on from its (initial) parameters.
    random_state : int or None, default=None
        Seed of everything random. With an int, training with `total_env_steps`, adapting and evaluating give the same
        result each time.
    verbose : int, default=0
        1 shows a progress bar, whose end is open: nobody knows how many iterations a budget allows.

    Attributes
    ----------
    observation_space_, action_space_ : gymnasium.Space
        Of the environments.
    history_ : pandas.DataFrame
        A row for each iteration: ``iteration``, ``env_steps``, ``return_0`` (before adaptation), ``return_1``, ..., ``loss``,
        ``kl``, ``seconds``.
    n_iter_, n_env_steps_ : int
        Iterations and time steps of meta-training.
    module_ : PolicyNetwork
        A plain network with the (initial, or adapted) weights.
    adaptation_report_ : AdaptationReport
        Of an adapted policy: returns before and after.

    References
    ----------
    Finn, Abbeel, Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML, section 5.3. Rothfuss et
    al. (2019), ProMP: proximal meta-policy search, ICLR.

    Examples
    --------
    >>> from fewshot.applications.rl import MAMLPolicy, PointNavigation
    >>> family = PointNavigation(horizon=20)
    >>> policy = MAMLPolicy(tasks_per_batch=4, episodes=5, random_state=0).fit_meta(family, total_env_steps=2000)
    >>> env = family.make((0.3, -0.2))
    >>> adapted = policy.adapt(env, episodes=5)
    >>> adapted.predict([0.0, 0.0]).shape
    (2,)
    >>> adapted.evaluate(env, episodes=3).shape
    (3,)
    """

    def __init__(
        self,
        module: Any = None,
        *,
        hidden: Any = (64, 64),
        activation: str = "tanh",
        log_std: float = -0.5,
        inner_steps: int = 1,
        inner_lr: float | None = None,
        learn_step_sizes: Any = None,
        later_step_factor: float = 0.5,
        surrogate: str = "lvc",
        order: Any = "exact",
        outer: Any = "trpo",
        max_kl: float = 0.02,
        clip: float = 0.2,
        outer_lr: float = 0.01,
        tasks_per_batch: int = 20,
        episodes: int = 20,
        discount: float = 0.99,
        gae_lambda: float = 0.97,
        normalise_observations: bool = True,
        engine: Any = "auto",
        warm_start: bool = False,
        random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.module = module
        self.hidden = hidden
        self.activation = activation
        self.log_std = log_std
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.learn_step_sizes = learn_step_sizes
        self.later_step_factor = later_step_factor
        self.surrogate = surrogate
        self.order = order
        self.outer = outer
        self.max_kl = max_kl
        self.clip = clip
        self.outer_lr = outer_lr
        self.tasks_per_batch = tasks_per_batch
        self.episodes = episodes
        self.discount = discount
        self.gae_lambda = gae_lambda
        self.normalise_observations = normalise_observations
        self.engine = engine
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    # -------------------------------------------------------------------------------------------- meta-training

    def fit_meta(self, family: Any, total_env_steps: int | None = None, max_time: float | None = None) -> MAMLPolicy:
        """Learn an initial policy over a family of environments.

        The policy is that of the last iteration, or of an earlier one where the return after adapting has fallen since by more than
        chance explains (with a warning in the log). Ctrl-C, and an environment that fails, keep what was learned; with
        ``warm_start=True`` the same call goes on, as if nothing had happened.

        Parameters
        ----------
        family : Family or what :func:`~fewshot.applications.rl.as_family` takes
            Environments, see :class:`~fewshot.applications.rl.EnvFamily`.
        total_env_steps : int, default=None
            Stop after the iteration in which the time steps of all environments together reach this number.
        max_time : float, default=None
            Stop after the iteration in which so many seconds are over. Both None: five minutes.

        Returns
        -------
        MAMLPolicy
            Itself.

        Raises
        ------
        InvalidParameterError
            If a setting, a space or the budget cannot be used.
        EnvironmentFailedError
            If an environment raises an error or gives numbers that are none.
        DivergenceError
            If too many iterations in a row find nothing finite to learn from.
        """
        with progress_bar(self, shown=bool(self.verbose)):
            return self._fit_meta(family, total_env_steps, max_time)

    fit = fit_meta

    @with_callbacks
    def _fit_meta(self, family: Any, total_env_steps: int | None, max_time: float | None) -> MAMLPolicy:
        budget = Budget(total_env_steps, max_time)
        source = as_family(family)
        check_spaces(source.observation_space, source.action_space)
        settings, how = self._policy_settings(), self._learner_settings()
        training = self._start(source, settings, how, budget)
        over = bool(training.history) and budget.is_spent(training.env_steps)
        try:
            with (
                threads_for(_size(training.learner.parameters), how.tasks_per_batch * how.episodes * source.horizon),
                report_rounds(self, None, family, None, training.fitted_attributes) as on_round,
            ):
                while not over:
                    training.iterate()
                    over = budget.is_spent(training.env_steps)
                    over = on_round(training, len(training.history) - 1, last=over) or over
        except BaseException as error:
            # Hours of training are not lost to one bad episode, nor what was trained before to a start that was broken off.
            if training.history or (isinstance(error, KeyboardInterrupt) and not hasattr(self, "_meta")):
                logger.info("stopped after %d iterations; warm_start=True goes on", training.learner.done)
                self._keep(training)
            raise
        self._keep(training)
        return self

    def _policy_settings(self) -> PolicySettings:
        own = {field.name: getattr(self, field.name) for field in fields(PolicySettings)}
        clip = PolicySettings(clip=self.clip).clip  # checked even where it is of no use
        return PolicySettings(**own | {"clip": clip if self.outer == "ppo" else None})

    def _learner_settings(self) -> LearnerSettings:
        return LearnerSettings(
            tasks_per_batch=self.tasks_per_batch,
            episodes=self.episodes,
            outer=self.outer,
            order=self.order,
            max_kl=self.max_kl,
            outer_lr=self.outer_lr,
            engine=self.engine,
        )

    def _rng(self, *branch: int) -> np.random.Generator:
        seed = self.random_state
        if not (seed is None or (isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0)):
            raise InvalidParameterError(f"random_state: got {seed!r}; expected an integer of at least 0, or None.")
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(APART, *branch)))

    def _start(self, family: Family, settings: PolicySettings, how: LearnerSettings, budget: Budget) -> Training:
        """Begin a training, or go on with one."""
        if not (self.warm_start and hasattr(self, "_meta")):
            return Training.begin(settings, family, how, budget, self._rng(FIT))
        training: Training | None = getattr(self, "_training", None)
        if training is None:
            return Training.resume(self, settings, family, how, budget, self._rng(FIT, self.n_iter_))
        training.go_on(family, settings, how)
        return training

    def _keep(self, training: Training) -> None:
        for name in ("adaptation_report_", "_act_generator"):  # of what it was before
            self.__dict__.pop(name, None)
        self.__dict__.update(training.fitted_attributes(), _training=training)
        if training.decline.has_come():
            logger.warning(
                "the return after adapting has fallen since iteration %d, so the parameters are those of that iteration; train "
                "for less long, or with a lower max_kl",
                training.decline.iteration,
            )

    # -------------------------------------------------------------------------------------------- adapting

    def adapt(
        self,
        env: Any,
        *,
        episodes: int = 20,
        steps: int = 1,
        guard: bool = True,
        action_filter: ActionFilter | None = None,
    ) -> MAMLPolicy:
        """Adapt to one environment from a few episodes in it.

        Parameters
        ----------
        env : gymnasium.Env, VectorEnv or RecordedEpisodes
            The environment, or episodes that were recorded in it. Episodes are at most as long as in meta-training.
        episodes : int, default=20
            Episodes for each step.
        steps : int, default=1
            Policy-gradient steps, each on episodes of the policy that the last one gave. Steps past those that
            meta-training looked ahead use the last one's sizes times `later_step_factor`.
        guard : bool, default=True
            Run as many episodes again with the adapted policy, and keep the policy after the step whose episodes had the highest
            mean return: the unadapted one, if none is higher. Recorded episodes leave nothing to run.
        action_filter : callable, default=None
            ``(observations, actions) -> actions``, called before each step of the environment with observations of shape
            (1, episodes, n_observed): what is not safe is replaced. It returns an array of the shape of `actions`.

        Returns
        -------
        MAMLPolicy
            A new policy; this one is unchanged.

        Raises
        ------
        NotFittedError
            If :meth:`fit_meta` was not called before.
        InvalidDataError
            If the environment's spaces are not those of meta-training.
        DivergenceError
            If a step leads to parameters that are not finite.

        Warns
        -----
        UserWarning
            If recorded episodes have other log-probabilities than this policy gives.
        """
        self._check_fitted("adapt")
        episodes, steps = check_count("episodes", episodes), check_count("steps", steps)
        path = [expand(self._meta.moving, 1)]
        if isinstance(env, RecordedEpisodes):
            if steps != 1:
                raise InvalidParameterError(
                    f"steps: got {steps} with recorded episodes; expected 1, since a later step needs episodes of the adapted "
                    "policy."
                )
            found = env.trajectories(self.observation_space_, self.action_space_)
            self._check_recorded(path[0], found)
            return self._adapted(self._step(path[0], found, 0), AdaptationReport.of_recorded(len(env)))
        rng, stages, after = self._rng(ADAPT), [], None
        options = {"action_filter": action_filter}
        with self._episodes_in(env, episodes) as run:
            for k in range(steps):
                found = run(path[-1], rng, **options)
                stages.append(found.returns()[0].numpy())
                path.append(self._step(path[-1], found, k))
            if guard:
                after = run(path[-1], rng, **options).returns()[0].numpy()
        report = AdaptationReport.compare(stages, after)
        if not report.kept:
            logger.info("adapt: %s", report)
        return self._adapted(path[report.step], report)

    def _step(self, theta: Tensors, found: Trajectories, k: int) -> Tensors:
        actor = self._actor
        after = actor.step(LoopKernels(actor.functional), self._meta, theta, actor.rows(found), k)
        try:
            check_parameters(after)
        except NotFiniteError as error:
            raise DivergenceError(
                f"env: got episodes from which {error}; expected rewards and observations of moderate size; train with a smaller "
                "inner_lr, or scale what the environment gives."
            ) from error
        return after

    def _check_recorded(self, theta: Tensors, found: Trajectories) -> None:
        """Warn of log-probabilities that are not those of the policy that adapts."""
        actor = self._actor
        x, valid = found.observations.flatten(1, 2), found.mask > 0
        with torch.no_grad():
            output = actor.forward.bind(theta, {}, actor.functional.constant, x)(x)
            own = actor.distribution.log_prob(output, found.actions.flatten(1, 2)).view_as(found.log_probs)
        apart = (own - found.log_probs)[valid].abs().median().item()
        if not apart < MOST_APART:
            warnings.warn(
                f"log_probs: got values that differ from those of this policy by {apart:.2g} (median), a factor of "
                f"{math.exp(min(apart, 700)):.2g} in probability; expected episodes of the policy before adapting, and "
                "log-probabilities in units in which the finite bounds of a Box are -1 and 1; record them by MAMLPolicy.record.",
                UserWarning,
                stacklevel=3,
            )

    def _adapted(self, theta: Tensors, report: AdaptationReport) -> MAMLPolicy:
        new = copy.copy(self)
        for name in ("_training", "_act_generator"):
            new.__dict__.pop(name, None)
        new._theta = {name: value[0].clone() for name, value in theta.items()}
        new.adaptation_report_ = report
        return new

    @contextlib.contextmanager
    def _episodes_in(self, env: Any, episodes: int) -> Iterator[Callable[..., Trajectories]]:
        """Give a function ``(theta, rng, **options) -> Trajectories`` that runs so many episodes in an environment."""
        family = as_one_task(env, horizon=self.horizon_)
        name = differ((family.observation_space, family.action_space), (self.observation_space_, self.action_space_))
        if name is not None:
            got, expected = getattr(family, name), getattr(self, f"{name}_")
            raise InvalidDataError(f"env: its {name} is {got}; the policy was trained with {expected}.")
        task = family.sample(np.random.default_rng(0))
        slots = min(episodes, getattr(env, "num_envs", episodes))  # a vector environment may have fewer
        with (
            contextlib.closing(family.batch([task], slots)) as batch,
            threads_for(_size(self._meta), slots * family.horizon),
        ):

            def run(theta: Tensors, rng: np.random.Generator, **options: Any) -> Trajectories:
                rounds = [
                    self._actor.run(batch, theta, slots, family.horizon, rng, **options)
                    for _ in range(-(-episodes // slots))
                ]
                return Trajectories.join(rounds, axis=1).first(episodes)

            yield run

    # -------------------------------------------------------------------------------------------- acting

    def predict(self, obs: npt.ArrayLike, deterministic: bool = True) -> npt.NDArray[Any]:
        """Choose actions.

        Parameters
        ----------
        obs : array-like of shape (*observation) or (n, *observation)
            One observation, or several.
        deterministic : bool, default=True
            Take the most likely actions; otherwise draw them.

        Returns
        -------
        ndarray of shape (*action) or (n, *action)
            In the action space, within its bounds.
        """
        self._check_fitted("predict")
        remedy = "give what an environment of meta-training gives"
        observed = encode_observations(self.observation_space_, obs, name="obs", remedy=remedy)
        actor = self._actor
        if observed.ndim > 2:
            raise InvalidDataError(
                f"obs: got shape {np.shape(obs)}; expected one observation of {self.observation_space_}, or several in a row."
            )
        if not np.isfinite(observed).all():
            raise InvalidDataError("obs: got values that are not finite; expected numbers; see where they come from.")
        x = torch.from_numpy(np.atleast_2d(observed))
        with actor.functional.mode(training=False), torch.no_grad():
            output = actor.functional.output(self._theta, {}, actor.functional.constant, x)
            if deterministic:
                raw = actor.distribution.mode(output)
            else:
                raw = actor.distribution.sample(output, actor.distribution.noise((len(x),), self._generator()))
        actions = to_actions(self.action_space_, raw.numpy())
        found: npt.NDArray[Any] = actions[0] if observed.ndim == 1 else actions
        return found

    def _generator(self) -> torch.Generator:
        if not hasattr(self, "_act_generator"):
            self._act_generator = torch.Generator().manual_seed(int(self._rng(ACT).integers(2**63)))
        return self._act_generator

    def evaluate(
        self, env: Any, episodes: int = 20, deterministic: bool = False, action_filter: ActionFilter | None = None
    ) -> npt.NDArray[np.float64]:
        """Run episodes and return what they brought.

        Parameters
        ----------
        env : gymnasium.Env or VectorEnv
            Where to act.
        episodes : int, default=20
            How many.
        deterministic : bool, default=False
            Take the most likely actions.
        action_filter : callable, default=None
            As of :meth:`adapt`.

        Returns
        -------
        ndarray of shape (episodes,)
            Undiscounted returns.
        """
        self._check_fitted("evaluate")
        found = self._act_in(env, episodes, EVALUATE, deterministic=deterministic, action_filter=action_filter)
        return found.returns()[0].double().numpy()

    def record(self, env: Any, episodes: int = 20, action_filter: ActionFilter | None = None) -> RecordedEpisodes:
        """Run episodes and return them in the form that :meth:`adapt` takes, with the log-probabilities of the actions.

        Parameters
        ----------
        env : gymnasium.Env or VectorEnv
            Where to act.
        episodes : int, default=20
            How many.
        action_filter : callable, default=None
            As of :meth:`adapt`. What is recorded is what the policy chose; the filter counts as part of the environment.
        """
        self._check_fitted("record")
        found = self._act_in(env, episodes, RECORD, action_filter=action_filter)
        return RecordedEpisodes.of(found, self.observation_space_, self.action_space_)

    def _act_in(self, env: Any, episodes: int, branch: int, **options: Any) -> Trajectories:
        """Run episodes with the policy as it is."""
        theta = {name: value.unsqueeze(0) for name, value in self._theta.items()}
        with self._episodes_in(env, check_count("episodes", episodes)) as run:
            return run(theta, self._rng(branch), **options)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_training"}  # which a copy cannot go on with

    @property
    def module_(self) -> PolicyNetwork:
        """A plain network with the (initial, or adapted) weights."""
        self._check_fitted("module_")
        network = copy.deepcopy(self._network)
        network.load_state_dict({**self._theta, **self._actor.functional.constant})
        return network

    def _check_fitted(self, what: str) -> None:
        if not hasattr(self, "_meta"):
            raise NotFittedError(f"{what}: this MAMLPolicy is not meta-trained yet; call fit_meta first.")


def _size(parameters: MetaParameters) -> int:
    return sum(p.numel() for p in parameters.moving.values())
