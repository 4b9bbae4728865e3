"""Episodes of MuJoCo's runners whose states are rows of an array, advanced over threads.

Gymnasium spends nearly half of a time step of HalfCheetah in Python, and all on one core. Here a thread has one ``MjData``: it
loads the state of an episode, lets MuJoCo simulate, and stores the state. MuJoCo's *integration state* holds all that the next
step depends on, the warm start of the constraint solver included, so the numbers are those of Gymnasium's environments, bit for
bit.

``mujoco.rollout`` does the like in C++, but its states lack the warm start, and contact forces are not among what it returns:
numbers differ from the seventh digit on, Ant's observations cannot be had, and it is no faster, since nearly all time goes into
the simulation.
"""

from __future__ import annotations

import os
import queue
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from ..checks import check_count
from ._native import NativeBatch
from .protocols import Bools, Floats

__all__ = ["AntBatch", "HalfCheetahBatch", "Runner", "RunnerBatch", "available_cores"]

CHUNKS = 4  # of a thread's episodes: a thread that another process holds up leaves the rest to the others


def available_cores() -> int:
    """Count the cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # outside Linux a process cannot be bound
        return os.cpu_count() or 1


@dataclass(frozen=True)
class Runner:
    """What is the same in all episodes of one of Gymnasium's MuJoCo environments.

    Parameters
    ----------
    model : mujoco.MjModel
        The body and its world.
    qpos, qvel : ndarray of shape (nq,), (nv,)
        Positions and velocities around which episodes begin.
    frame_skip : int
        Steps of the simulation in a time step.
    dt : float
        Seconds of a time step.
    observation_space, action_space : gymnasium.Space
        Of the environment.
    """

    model: Any
    qpos: Floats
    qvel: Floats
    frame_skip: int
    dt: float
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    @classmethod
    def of(cls, env: gymnasium.Env[Any, Any]) -> Runner:
        """Take it from an environment, which may be closed afterwards."""
        inner: Any = env.unwrapped
        return cls(
            inner.model,
            inner.init_qpos,
            inner.init_qvel,
            inner.frame_skip,
            inner.dt,
            inner.observation_space,
            inner.action_space,
        )


class RunnerBatch(NativeBatch):
    """Episodes of one runner that differ in what they are rewarded for; see :class:`~.protocols.EpisodeBatch`.

    A subclass says what is observed and rewarded, as Gymnasium's environment of its name does.

    Parameters
    ----------
    runner : Runner
        Of the environment.
    drive : callable
        From velocities along x in m/s, shape (tasks, episodes), to the part of the reward that differs between tasks.
    control_cost : float
        Weight of the squares of actions.
    n_tasks, n_episodes, horizon : int
        Numbers of slots, and time steps after which an episode is cut off.
    threads : int, default=None
        Threads that simulate; by default as many as there are cores. The numbers do not depend on it.

    Raises
    ------
    InvalidParameterError
        If a number is below 1.
    """

    RESET_NOISE = 0.1  # half-width of positions and standard deviation of velocities at the start
    NEEDS_FORCES = False  # of contacts, which MuJoCo computes on request

    def __init__(
        self,
        runner: Runner,
        drive: Callable[[Floats], Floats],
        control_cost: float,
        n_tasks: int,
        n_episodes: int,
        horizon: int,
        threads: int | None = None,
    ) -> None:
        import mujoco  # installed with an extra only

        threads = available_cores() if threads is None else check_count("threads", threads)
        super().__init__(n_tasks, n_episodes, horizon, runner.observation_space, runner.action_space)
        self._mujoco, self._runner, self._drive, self._control_cost = mujoco, runner, drive, control_cost
        self._kind, model = int(mujoco.mjtState.mjSTATE_INTEGRATION), runner.model
        n, first = n_tasks * n_episodes, mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_TIME))
        self._states = np.zeros((n, mujoco.mj_stateSize(model, self._kind)))
        self._qpos = self._states[:, first : first + model.nq]
        self._qvel = self._states[:, first + model.nq : first + model.nq + model.nv]
        self._threads = min(threads, n)
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._threads):
            self._free.put(mujoco.MjData(model))
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None

    @abstractmethod
    def _look(self, data: Any, slot: int) -> None:
        """Keep what is not part of a state, right after the simulation of a slot."""

    @abstractmethod
    def _x(self) -> Floats:
        """Return where the runners are along x, in m, shape (n,); not a view."""

    @abstractmethod
    def _observe(self) -> Floats:
        """Return observations, shape (n, observation)."""

    @abstractmethod
    def _judge(self, rewards: Floats, costs: Floats) -> tuple[Floats, Bools]:
        """Complete rewards for the velocity, given costs of controls; return them and whether states are terminal, shape (n,)."""

    def _begin(self, rng: np.random.Generator) -> npt.NDArray[Any]:
        runner, mujoco, noise = self._runner, self._mujoco, self.RESET_NOISE
        data = self._free.get()
        for slot, state in enumerate(self._states):
            mujoco.mj_resetData(runner.model, data)
            data.qpos[:] = runner.qpos + rng.uniform(-noise, noise, runner.model.nq)
            data.qvel[:] = runner.qvel + noise * rng.standard_normal(runner.model.nv)
            mujoco.mj_forward(runner.model, data)
            self._look(data, slot)
            mujoco.mj_getState(runner.model, data, state, self._kind)
        self._free.put(data)
        return self._observe().reshape(*self.slots, -1)

    def _advance(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats, Bools]:
        before, slots = self._x(), np.flatnonzero(self.alive)
        flat = actions.reshape(len(before), -1)
        if self._pool is None:
            self._simulate(slots, flat)
        else:
            chunks = np.array_split(slots, min(len(slots), CHUNKS * self._threads) or 1)
            for _ in self._pool.map(partial(self._simulate, actions=flat), chunks):
                pass  # so that an error in a thread is raised here
        velocities = (self._x() - before) / self._runner.dt
        rewards = self._drive(velocities.reshape(self.slots)).ravel()
        costs = self._control_cost * np.square(flat).sum(-1)
        rewards, terminal = self._judge(rewards, costs)
        return (
            self._observe().reshape(*self.slots, -1),
            rewards.reshape(self.slots),
            terminal.reshape(self.slots),
        )

    def _simulate(self, slots: npt.NDArray[np.intp], actions: npt.NDArray[Any]) -> None:
        """Advance some slots; MuJoCo lets other threads run meanwhile."""
        runner, mujoco = self._runner, self._mujoco
        data = self._free.get()
        try:
            for slot in slots:
                state = self._states[slot]
                mujoco.mj_setState(runner.model, data, state, self._kind)
                data.ctrl[:] = actions[slot]
                mujoco.mj_step(runner.model, data, nstep=runner.frame_skip)
                if self.NEEDS_FORCES:
                    mujoco.mj_rnePostConstraint(runner.model, data)
                self._look(data, slot)
                mujoco.mj_getState(runner.model, data, state, self._kind)
        finally:  # or another thread would wait for it for ever
            self._free.put(data)

    def close(self) -> None:
        """Take no further steps, and end the threads."""
        super().close()
        if self._pool is not None:
            self._pool.shutdown()


class HalfCheetahBatch(RunnerBatch):
    """Episodes of ``HalfCheetah-v5``; parameters as of :class:`RunnerBatch`."""

    def _look(self, data: Any, slot: int) -> None:
        """Nothing is needed but the state."""

    def _x(self) -> Floats:
        return self._qpos[:, 0].copy()

    def _observe(self) -> Floats:
        return np.concatenate([self._qpos[:, 1:], self._qvel], -1)

    def _judge(self, rewards: Floats, costs: Floats) -> tuple[Floats, Bools]:
        return rewards - costs, np.zeros(len(rewards), np.bool_)


class AntBatch(RunnerBatch):
    """Episodes of ``Ant-v5``, which end when its torso leaves its range of heights; parameters as of :class:`RunnerBatch`."""

    NEEDS_FORCES = True
    TORSO = 1
    HEIGHTS = 0.2, 1.0
    HEALTHY_REWARD = 1.0
    MOST_FORCE = 1.0
    CONTACT_COST = 5e-4

    def __init__(self, runner: Runner, *options: Any, **more: Any) -> None:
        super().__init__(runner, *options, **more)
        # Of the last evaluation within a step. That of its place differs from the state's, since Ant is integrated by
        # Runge-Kutta steps; Gymnasium measures velocities by it.
        self._place = np.zeros(len(self._states))
        self._forces = np.zeros((len(self._states), runner.model.nbody, 6))

    def _look(self, data: Any, slot: int) -> None:
        self._place[slot], self._forces[slot] = data.xpos[self.TORSO, 0], data.cfrc_ext

    def _x(self) -> Floats:
        return self._place.copy()

    def _observe(self) -> Floats:
        forces = self._forces[:, 1:].clip(-self.MOST_FORCE, self.MOST_FORCE)
        return np.concatenate([self._qpos[:, 2:], self._qvel, forces.reshape(len(forces), -1)], -1)

    def _judge(self, rewards: Floats, costs: Floats) -> tuple[Floats, Bools]:
        low, high = self.HEIGHTS
        height, finite = self._qpos[:, 2], np.isfinite(self._qpos).all(-1) & np.isfinite(self._qvel).all(-1)
        healthy = finite & (low <= height) & (height <= high)
        forces = self._forces.clip(-self.MOST_FORCE, self.MOST_FORCE).reshape(len(rewards), -1)
        contact = self.CONTACT_COST * np.square(forces).sum(-1)
        return rewards + healthy * self.HEALTHY_REWARD - (costs + contact), ~healthy
