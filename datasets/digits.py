"""Episodes of handwritten digits, N-way K-shot: to which of a few unfamiliar classes an image belongs.

Images of scikit-learn's digits (:func:`sklearn.datasets.load_digits`, 8 x 8 pixels). Ten classes are few to learn across, so
classes for training are digits in eight orientations (turns by 90 degrees, mirrored or not), as Omniglot's characters are turned
in Santoro et al. (2016); other digits, upright, are left for the test.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from fewshot.errors import InvalidParameterError
from fewshot.tasks import Rows

from ._families import check_counts, make_rows

__all__ = ["Digits"]

TRAINING = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Digits:
    """Samples tasks of `ways` classes that are numbered anew in each, a :class:`~fewshot.TaskSampler`.

    Parameters
    ----------
    ways : int, default=5
        Classes of a task.
    shots : int, default=1
        Support images of each class.
    queries : int, default=5
        Query images of each class.
    digits : sequence of int, default=(0, 1, 2, 3, 4)
        The digits that classes are made of.
    orientations : int, default=8
        Classes made of each: 1 is upright, 4 are turned, 8 are turned and mirrored. Digits 6 and 9, turned, are not told apart.

    Raises
    ------
    InvalidParameterError
        If a number is out of range, or there are fewer classes than `ways`, or fewer images than a task needs.

    References
    ----------
    Alpaydin, Kaynak (1998), Optical recognition of handwritten digits, UCI repository (CC BY 4.0). Santoro, Bartunov, Botvinick,
    Wierstra, Lillicrap (2016), Meta-learning with memory-augmented neural networks, ICML, section 4.1 (turned classes).

    Examples
    --------
    >>> import numpy as np
    >>> support, query = Digits(ways=5, shots=1).sample(3, np.random.default_rng(0))
    >>> support.x.shape, query.x.shape, sorted(support.y[0].tolist())
    (torch.Size([3, 5, 64]), torch.Size([3, 25, 64]), [0, 1, 2, 3, 4])
    """

    ways: int = 5
    shots: int = 1
    queries: int = 5
    digits: Sequence[int] = TRAINING
    orientations: int = 8

    def __post_init__(self) -> None:
        check_counts(ways=self.ways, shots=self.shots, queries=self.queries)
        if not self.digits or not set(self.digits) <= set(range(10)):
            raise InvalidParameterError(f"digits: got {self.digits!r}; expected some of 0 to 9.")
        if self.orientations not in (1, 4, 8):
            raise InvalidParameterError(f"orientations: got {self.orientations!r}; expected 1, 4 or 8.")
        n_classes = len(set(self.digits)) * self.orientations
        if self.ways > n_classes:
            raise InvalidParameterError(f"ways: got {self.ways}; expected at most {n_classes}, the number of classes.")
        fewest = min(len(_images(digit)) for digit in self.digits)
        if self.shots + self.queries > fewest:
            raise InvalidParameterError(
                f"queries: got {self.queries} beside {self.shots} shots; a digit has {fewest} images, so at most "
                f"{fewest - self.shots}."
            )

    def sample(self, n_tasks: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Draw support and query of `n_tasks` tasks, with integer targets 0 to ``ways - 1``.

        Parameters
        ----------
        n_tasks : int
            Number of tasks.
        rng : numpy.random.Generator
            Source of every random choice.

        Returns
        -------
        support, query : Rows
            Inputs of shape (tasks, ways * shots, 64) and (tasks, ways * queries, 64), pixels from 0 to 1.
        """
        classes = [(digit, o) for digit in sorted(set(self.digits)) for o in range(self.orientations)]
        n = self.shots + self.queries
        x = np.empty((n_tasks, self.ways, n, 64))
        for t in range(n_tasks):
            for way, c in enumerate(rng.choice(len(classes), self.ways, replace=False)):
                digit, orientation = classes[c]
                images = _oriented(digit, orientation)
                x[t, way] = images[rng.choice(len(images), n, replace=False)]
        y = np.broadcast_to(np.arange(self.ways)[:, None], (n_tasks, self.ways, n))

        def rows(part: slice) -> Rows:
            return make_rows(x[:, :, part].reshape(n_tasks, -1, 64), y[:, :, part].reshape(n_tasks, -1).copy())

        return rows(slice(self.shots)), rows(slice(self.shots, None))


@functools.cache
def _images(digit: int) -> npt.NDArray[np.float64]:
    """All images of a digit, shape (images, 8, 8), pixels from 0 to 1."""
    data = load_digits()
    images: npt.NDArray[np.float64] = data.images[data.target == digit] / 16
    return images


@functools.cache
def _oriented(digit: int, orientation: int) -> npt.NDArray[np.float64]:
    """Images of a class as rows, shape (images, 64)."""
    turned = np.rot90(_images(digit), orientation % 4, axes=(1, 2))
    return (turned[:, :, ::-1] if orientation >= 4 else turned).reshape(len(turned), 64)
