"""Synthetic task families and loaders of real data; imported as ``fewshot.datasets``.

Loaders return a :class:`sklearn.utils.Bunch` with ``data``, ``target``, ``tasks`` and ``DESCR`` (a card:
provenance, units, licence, known problems), and ``blocks``, ``time``, ``sensitive`` where these mean
something. ``load_*`` reads a table that an installed package carries, ``fetch_*`` a file that is downloaded
once. Families draw endless tasks: hand one to ``fit_meta``.
"""

if __name__ == "datasets":
    raise ImportError(
        "this folder is the package `fewshot.datasets` and was imported as `datasets`: write "
        "`import fewshot.datasets`. If another library's `datasets` was meant, start Python outside this "
        "checkout or remove the checkout from sys.path."
    )

from .acs_income import fetch_acs_income
from .communities_crime import fetch_communities_crime
from .digits import Digits
from .gaussian_means import GaussianMeans, GaussianMeanTasks
from .heart_disease import fetch_heart_disease
from .high_school import load_high_school
from .linear_regressions import LinearRegressions, LinearRegressionTasks
from .parkinsons import fetch_parkinsons_telemonitoring
from .pbc import load_pbc
from .pharmacokinetics import load_remifentanil, load_theophylline
from .quadratics import Quadratics, QuadraticTasks
from .rotating_boundaries import BoundaryTasks, RotatingBoundaries
from .sinusoids import Sinusoids, SinusoidTasks

__all__ = [
    "BoundaryTasks",
    "Digits",
    "GaussianMeanTasks",
    "GaussianMeans",
    "LinearRegressionTasks",
    "LinearRegressions",
    "QuadraticTasks",
    "Quadratics",
    "RotatingBoundaries",
    "SinusoidTasks",
    "Sinusoids",
    "fetch_acs_income",
    "fetch_communities_crime",
    "fetch_heart_disease",
    "fetch_parkinsons_telemonitoring",
    "load_high_school",
    "load_pbc",
    "load_remifentanil",
    "load_theophylline",
]
