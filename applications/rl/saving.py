"""Policies in files: settings, spaces and tensors; the network is built anew, and nothing of an environment is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from fewshot.errors import SerializationError
from fewshot.persistence import register
from fewshot.persistence._estimators import describe_module

from .adaptation_report import AdaptationReport
from .learning.policy_settings import PolicySettings
from .policy import MAMLPolicy

__all__ = ["space_from", "space_state"]


def space_state(space: Space[Any]) -> dict[str, Any]:
    """Describe a space in plain values.

    Examples
    --------
    >>> space_state(Discrete(3))
    {'n': 3, 'start': 0}
    """
    if isinstance(space, Box):
        return {"low": space.low, "high": space.high, "dtype": space.dtype.name}
    assert isinstance(space, Discrete)
    return {"n": int(space.n), "start": int(space.start)}


def space_from(state: Mapping[str, Any]) -> Space[Any]:
    """Inverse of :func:`space_state`."""
    if "n" in state:
        return Discrete(state["n"], start=state["start"])
    return Box(np.asarray(state["low"]), np.asarray(state["high"]), dtype=np.dtype(state["dtype"]).type)


def _to_state(policy: MAMLPolicy) -> dict[str, dict[str, Any]]:
    parameters = policy.get_params(deep=False)
    state = {"parameters": {**parameters, "module": describe_module(policy.module)}}
    if not hasattr(policy, "_meta"):
        return state
    state["fitted"] = {
        "horizon_": policy.horizon_,
        "history_": policy.history_,
        "n_iter_": policy.n_iter_,
        "n_env_steps_": policy.n_env_steps_,
        "_meta": policy._meta,
        "_theta": policy._theta,
    }
    if hasattr(policy, "adaptation_report_"):
        state["fitted"]["adaptation_report_"] = policy.adaptation_report_
    state["spaces"] = {
        "observation": space_state(policy.observation_space_),
        "action": space_state(policy.action_space_),
    }
    state["network"] = {"constant": policy._actor.functional.constant}
    settings = {field.name: getattr(policy._settings, field.name) for field in fields(PolicySettings)}
    state["settings"] = {**settings, "module": describe_module(policy._settings.module)}
    return state


def _from_state(cls: type, state: Mapping[str, Mapping[str, Any]]) -> MAMLPolicy:
    unknown = sorted(set(state["parameters"]) - set(MAMLPolicy._get_param_names()))
    if unknown:
        raise SerializationError(
            f"path: the file sets {', '.join(unknown)}, which MAMLPolicy does not have here; it was saved by another version, "
            "use that one."
        )
    policy: MAMLPolicy = cls(**state["parameters"])
    if "fitted" not in state:
        return policy
    policy.__dict__.update(state["fitted"])
    policy.observation_space_ = space_from(state["spaces"]["observation"])
    policy.action_space_ = space_from(state["spaces"]["action"])
    constant = dict(state["network"]["constant"])
    policy._settings = PolicySettings(**state["settings"])
    policy._network, policy._actor = policy._settings.build(policy.observation_space_, policy.action_space_, seed=0)
    network = policy._network
    shapes = {name: t.shape for name, t in network.state_dict().items()}
    stored = {name: t.shape for name, t in {**policy._meta.moving, **constant}.items()}
    if shapes != stored:
        raise SerializationError(
            "module: its parameters are not those that the policy was trained with; use the same network and settings."
        )
    policy._actor.functional.constant = constant
    return policy


register(AdaptationReport, "rl.AdaptationReport")
register(MAMLPolicy, "rl.MAMLPolicy", to_state=_to_state, from_state=_from_state)
