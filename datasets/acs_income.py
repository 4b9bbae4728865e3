"""Income in the American Community Survey: a task is a state, a row is a person at work."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import fetch_openml
from sklearn.utils import Bunch

from fewshot.errors import DataNotFoundError

from ._sources import find_on_disk

__all__ = ["fetch_acs_income"]

FOLDER, NAME = "acs_income", "acs_income_2018_states.csv.gz"
SHA256 = "faa5073ea41e49272666c587079d2edd91c9273cff8e59fab66332ccdf36d9d4"
ORIGIN = "a fresh copy of the sample, or remove it to sample from the original at OpenML"
FEATURES = ("AGEP", "COW", "SCHL", "MAR", "OCCP", "POBP", "RELP", "WKHP", "SEX", "RAC1P")
STATES = {  # with the census bureau's numbers
    **{
        "AL": 1,
        "AK": 2,
        "AZ": 4,
        "CO": 8,
        "CT": 9,
        "GA": 13,
        "HI": 15,
        "ID": 16,
        "IL": 17,
        "IN": 18,
        "IA": 19,
        "KS": 20,
    },
    **{
        "KY": 21,
        "ME": 23,
        "MD": 24,
        "MA": 25,
        "MI": 26,
        "MN": 27,
        "MO": 29,
        "MT": 30,
        "NE": 31,
        "NV": 32,
        "NH": 33,
        "NJ": 34,
    },
    **{
        "NM": 35,
        "NC": 37,
        "ND": 38,
        "OK": 40,
        "PA": 42,
        "RI": 44,
        "SC": 45,
        "SD": 46,
        "TN": 47,
        "UT": 49,
        "VT": 50,
        "VA": 51,
    },
    **{"WA": 53, "WI": 55, "WY": 56},
}
OPENML = 43141  # the original's number there, which fairlearn takes it from too
ROWS_PER_STATE = 1000
INCOME = 50_000  # dollars a year

DESCR = """\
ACS income, 39 states
=====================

**Provenance.** Public Use Microdata Sample of the American Community Survey 2018 (US Census Bureau), with the
columns and the rows of ACSIncome (Ding, Hardt, Miller and Schmidt 2021): people above 16 who worked at least
one hour a week and had an income of 100 dollars or more. A sample of 1,000 people in each of 39 states.

**Rows, task, target.** 39,000 people; a task is a state; the target is 1 if a person's income was above
50,000 dollars (35 % of rows; 26 % to 50 % by state). `sensitive` has the sex and the race.

**Columns of `data`.** Codes of the survey's data dictionary, but for MAR and RAC1P.

    AGEP    years
    COW     class of worker: 1 private firm, 2 non-profit, 3 local, 4 state, 5 federal government, 6 and 7
            self-employed, 8 without pay in a family's firm
    SCHL    schooling, 1 (none) to 24 (doctorate)
    MAR     1 married, 2 not
    OCCP    occupation, census code (about 500 of them; neighbours are alike)
    POBP    place of birth, code of state or country
    RELP    relation to the reference person, 0 (it is that person) to 17
    WKHP    hours of work a week
    SEX     1 male, 2 female
    RAC1P   1 white alone, 2 anything else

`COW`, `OCCP`, `POBP` and `RELP` are codes, not quantities.

**What was changed.** The sample at hand codes race in two values in some states and in five in others, so it
is brought to two everywhere. Where the sample is not on disk, 1,000 rows of each of the same states are drawn
(seed 0) from the original, and MAR and RAC1P are brought to two values: other people, the same columns.

**Known problems.** Survey weights are left out: shares are those of the sample, not of a state. Income is
what people said. A threshold of 50,000 dollars means something else in each state. Large states (California,
Texas, New York, Florida, Ohio and others) are not in the sample.

**Harms.** Income stands in for nobody's worth or credit; differences by sex and race in these data are those
of society, and a model that reproduces them perpetuates them. "Other" hides every group that is not white.
For the study of methods, not for decisions on people.

**Licence.** Public domain (US Census Bureau); terms of use of PUMS apply: do not try to identify anybody.
Cite F. Ding, M. Hardt, J. Miller and L. Schmidt (2021), Retiring Adult, NeurIPS.
"""


def fetch_acs_income(*, data_home: str | os.PathLike[str] | None = None) -> Bunch:
    """Load who earns more than 50,000 dollars in 39 states of the USA.

    Predict from work, schooling and person whether the income of a year was above 50,000 dollars. A task is a state.

    Parameters
    ----------
    data_home : path, default=None
        Folder that holds ``acs_income/acs_income_2018_states.csv.gz``; where it is not in it, the folder named by the
        environment variable ``FEWSHOT_DATA`` is searched. Where neither has it, the original of 1.7 million rows is fetched from
        OpenML (data set 43141, which ``fairlearn.datasets.fetch_acs_income`` reads too) into `data_home` (None:
        scikit-learn's own folder) and sampled.

    Returns
    -------
    Bunch
        ``data``
            DataFrame of shape (39000, 10), int; see ``DESCR``.
        ``target``
            Series ``income`` of shape (39000,): 1 above 50,000 dollars, 0 not.
        ``tasks``
            Series ``state``: two letters.
        ``sensitive``
            DataFrame of ``sex`` ("female", "male") and ``race`` ("white", "other").
        ``feature_names``
            List of the columns of ``data``.
        ``DESCR``
            Provenance, codes, licence, known problems and harms.

    Raises
    ------
    DataNotFoundError
        If the sample is not on disk and the original cannot be downloaded.
    InvalidDataError
        If the sample's checksum is wrong.

    References
    ----------
    F. Ding, M. Hardt, J. Miller and L. Schmidt (2021). Retiring Adult: New datasets for fair machine learning. NeurIPS.

    Examples
    --------
    >>> acs = fetch_acs_income()  # doctest: +SKIP
    >>> acs.data.shape, acs.tasks.nunique()  # doctest: +SKIP
    ((39000, 10), 39)
    """
    path = find_on_disk(FOLDER, NAME, ORIGIN, SHA256, data_home)
    frame = _original(data_home) if path is None else pd.read_csv(path)
    for column in ("MAR", "RAC1P"):
        frame[column] = np.where(frame[column] == 1, 1, 2)
    data = frame[list(FEATURES)].astype(np.int64)
    sensitive = pd.DataFrame(
        {
            "sex": data["SEX"].map({1: "male", 2: "female"}),
            "race": data["RAC1P"].map({1: "white", 2: "other"}),
        }
    )
    return Bunch(
        data=data,
        target=frame["PINCP"].astype(np.int64).rename("income"),
        tasks=frame["state"],
        sensitive=sensitive,
        feature_names=list(FEATURES),
        DESCR=DESCR,
    )


def _original(data_home: str | os.PathLike[str] | None) -> pd.DataFrame:
    """Sample the states from the original."""
    try:
        bunch = fetch_openml(data_id=OPENML, data_home=data_home, as_frame=True, parser="auto")
    except OSError as error:
        environment = os.environ.get("FEWSHOT_DATA")
        raise DataNotFoundError(
            f"{FOLDER}/{NAME}: not on disk (FEWSHOT_DATA is {environment or 'not set'}) and downloading the original from OpenML "
            f"failed ({type(error).__name__}); put the sample at {Path(data_home or environment or '.', FOLDER, NAME)}, or try "
            "again with a network."
        ) from None
    state, rng, parts = bunch.data["ST"].astype(float).to_numpy(), np.random.default_rng(0), []
    for name, number in sorted(STATES.items()):
        rows = np.sort(rng.choice(np.flatnonzero(state == number), ROWS_PER_STATE, replace=False))
        income = (bunch.target.iloc[rows].astype(float) > INCOME).astype(np.int64)
        parts.append(bunch.data.iloc[rows].assign(PINCP=income, state=name))
    return pd.concat(parts, ignore_index=True)
