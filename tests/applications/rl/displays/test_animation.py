"""Animated episodes: frames, captions and times against the episodes themselves."""

import gymnasium
import numpy as np
import pytest
from PIL import Image

from fewshot.applications.rl import EnvFamily, MAMLPolicy, PointNavigation, record_gif
from fewshot.applications.rl.environments.failures import EnvironmentFailedError
from fewshot.errors import FewShotError, InvalidParameterError, NotFittedError

FAMILY = PointNavigation(horizon=12)
GOAL = (0.3, -0.2)
TOP = 45  # of the captions over panels 320 pixels wide


class Counting(gymnasium.Env):
    """Shows the time step as a shade; an episode has as many steps as its seed says, or the action ends it."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fps=20, length=6, shape=(60, 80, 3)):
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps}
        self.render_mode, self.length, self.shape, self.seeds = "rgb_array", length, shape, []
        self.horizon = 100

    def reset(self, *, seed=None, options=None):
        self.time = 0
        self.seeds.append(seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(1, np.float32), 1.0, bool(action) or self.time >= self.length, False, {}

    def render(self):
        return np.full(self.shape, 20 * self.time, np.uint8)


def never(observation):
    return 0


def at_once(observation):
    return 1


def panels(path, n=1, width=80):
    """For each frame of a GIF its milliseconds and the shade in the middle of each panel."""
    found = []
    with Image.open(path) as image:
        for i in range(image.n_frames):
            image.seek(i)
            picture = np.asarray(image.convert("L")).astype(int)
            shades = [picture[-30, width // 2 + p * (width + 12)] for p in range(n)]
            found.append((image.info["duration"], shades))
    return found


@pytest.fixture(scope="module")
def policy():
    settings = {"tasks_per_batch": 3, "episodes": 4, "hidden": (8,), "random_state": 0}
    return MAMLPolicy(**settings).fit_meta(FAMILY, total_env_steps=1)


def test_every_step_is_a_frame(tmp_path):
    path = record_gif(never, Counting(), tmp_path / "one.gif")
    found = panels(path)
    assert path == tmp_path / "one.gif" and len(found) == 7
    assert [shades[0] for _, shades in found] == pytest.approx([20 * t for t in range(7)], abs=3)
    assert [ms for ms, _ in found] == [50] * 6 + [1200]


def test_speed_is_the_environments_own(tmp_path):
    found = panels(record_gif(never, Counting(fps=50, length=7), tmp_path / "fast.gif"))
    assert [shades[0] for _, shades in found] == pytest.approx([0, 40, 80, 120, 140], abs=3)  # and the last one
    assert {ms for ms, _ in found[:-1]} == {40}
    found = panels(record_gif(never, Counting(fps=20), tmp_path / "few.gif", fps=10))
    assert [shades[0] for _, shades in found] == pytest.approx([0, 40, 80, 120], abs=3) and found[0][0] == 100
    found = panels(record_gif(never, Counting(fps=20), tmp_path / "quick.gif", fps=50))
    assert len(found) == 7 and found[0][0] == 20


def test_two_panels_from_the_same_seeds(tmp_path):
    env = Counting()
    path = record_gif(never, env, tmp_path / "two.gif", before=at_once, episodes=2, random_state=0)
    shades = [shades for _, shades in panels(path, n=2)]
    expected = [[20 * min(t, 1), 20 * t] for t in range(7)] * 2  # the left one's last frame stays
    np.testing.assert_allclose(shades, expected, atol=3)
    assert env.seeds[:2] == env.seeds[2:] and env.seeds[0] != env.seeds[1]
    again = record_gif(never, Counting(), tmp_path / "again.gif", before=at_once, episodes=2, random_state=0)
    assert again.read_bytes() == path.read_bytes()


def test_captions_differ_where_they_should(tmp_path):
    """Captions are pixels; the same ones twice are the same, others are not, and the picture below them stays."""

    def first_frame(*captions):
        with Image.open(record_gif(never, Counting(), tmp_path / "x.gif", before=never, captions=captions)) as image:
            return np.asarray(image.convert("L"))

    one, two, other = first_frame("a", "b"), first_frame("a", "b"), first_frame("a", "W")
    np.testing.assert_array_equal(one, two)
    rows, columns = np.nonzero(np.abs(one.astype(int) - other) > 60)
    assert rows.max() < one.shape[0] - 60 and columns.min() >= 92


def test_large_frames_are_scaled_down(tmp_path):
    with Image.open(record_gif(never, Counting(shape=(60, 80, 3)), tmp_path / "small.gif", width=40)) as image:
        assert image.width == 40 and 30 < image.height < 60


def test_policies_before_and_after(policy, tmp_path):
    env = FAMILY.make(GOAL, render_mode="rgb_array")
    adapted = policy.adapt(FAMILY.make(GOAL), episodes=4, guard=False)
    path = record_gif(adapted, env, tmp_path / "point.gif", before=policy, random_state=1)
    with Image.open(path) as image:
        assert image.size == (2 * 320 + 12, 320 + TOP) and image.n_frames == 13
        image.seek(12)
        last = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(last[TOP:, :320] - last[TOP:, -320:]).max() > 100
    same = record_gif(policy, env, tmp_path / "same.gif", before=policy, random_state=1)
    with Image.open(same) as image:
        image.seek(12)
        last = np.asarray(image.convert("RGB")).astype(int)
    np.testing.assert_array_equal(last[TOP:, :320], last[TOP:, -320:])


def test_recording_disturbs_no_random_numbers(policy, tmp_path):
    env = FAMILY.make(GOAL, render_mode="rgb_array")
    expected = MAMLPolicy(**policy.get_params()).fit_meta(FAMILY, total_env_steps=1)
    for _ in range(2):
        first, second = (one.predict(np.zeros(2), deterministic=False) for one in (policy, expected))
        np.testing.assert_array_equal(first, second)
        record_gif(policy, env, tmp_path / "x.gif", random_state=0)


def test_agents_whose_predict_returns_a_pair(tmp_path):
    class Agent:
        met = []

        def predict(self, observation, deterministic):
            self.met.append(deterministic)
            return np.int64(0), None

    record_gif(Agent(), Counting(length=3), tmp_path / "agent.gif", deterministic=True)
    assert Agent.met == [True] * 3


def test_gymnasiums_cartpole(tmp_path):
    pytest.importorskip("pygame", reason="the extra rl draws Gymnasium's classic environments")
    family = EnvFamily.vary("CartPole-v1", length=(0.3, 1.0), constants={"render_mode": "rgb_array"})
    with Image.open(record_gif(at_once, family.make({"length": 0.5}), tmp_path / "cart.gif", random_state=0)) as image:
        assert image.width == 400 and image.n_frames >= 5


def test_errors(policy, tmp_path):
    path, env = tmp_path / "x.gif", Counting()
    with pytest.raises(InvalidParameterError, match="env: got .* with render_mode None; expected 'rgb_array'"):
        record_gif(policy, FAMILY.make(GOAL), path)
    with pytest.raises(InvalidParameterError, match="env: got PointNavigation; expected one gymnasium.Env"):
        record_gif(policy, FAMILY, path)
    with pytest.raises(InvalidParameterError, match=r"path: got '.*x.mp4'; expected a name that ends in .gif"):
        record_gif(never, env, tmp_path / "x.mp4")
    with pytest.raises(InvalidParameterError, match="captions: got 1 for 2 panels"):
        record_gif(never, env, path, before=never, captions=["a"])
    with pytest.raises(InvalidParameterError, match="policy: got int; expected a policy, an agent"):
        record_gif(3, env, path)
    for fps in (0, 51, "fast"):
        with pytest.raises(InvalidParameterError, match="fps: got .*expected a number above 0 and at most 50"):
            record_gif(never, env, path, fps=fps)
    with pytest.raises(InvalidParameterError, match="episodes: got 0"):
        record_gif(never, env, path, episodes=0)
    with pytest.raises(NotFittedError, match="record_gif: this MAMLPolicy is not meta-trained"):
        record_gif(MAMLPolicy(), env, path)
    assert not path.exists()
    with pytest.raises(FewShotError, match="path: .* cannot be written"):
        record_gif(never, env, tmp_path / "no" / "x.gif")


def test_an_environment_without_limit(tmp_path):
    env = Counting()
    env.horizon = None
    with pytest.raises(InvalidParameterError, match="env: got .*sets no limit of time steps"):
        record_gif(never, env, tmp_path / "x.gif")


@pytest.mark.parametrize("frame, got", [(None, "NoneType"), (np.zeros((3, 4)), r"an array of shape \(3, 4\)")])
def test_environments_that_draw_nothing(frame, got, tmp_path):
    env = Counting()
    env.render = lambda: frame
    with pytest.raises(EnvironmentFailedError, match=f"render: got {got} from"):
        record_gif(never, env, tmp_path / "x.gif")


def test_environments_that_cannot_draw(tmp_path):
    env = Counting()

    def render():
        raise OSError("no display")

    env.render = render
    with pytest.raises(EnvironmentFailedError, match="render: got OSError: no display from .*MUJOCO_GL"):
        record_gif(never, env, tmp_path / "x.gif")
