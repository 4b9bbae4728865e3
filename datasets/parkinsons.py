"""Voice recordings of people with Parkinson's disease at home: a task is a patient, a row is a recording."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from fewshot.errors import InvalidParameterError

from ._sources import find_file

__all__ = ["fetch_parkinsons_telemonitoring"]

NAME = "parkinsons_updrs.data"
URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/parkinsons/telemonitoring/" + NAME
SHA256 = "f2c7d5025dec4e92e7feae367a5f7ccf58789a10ac6b54bdf15976c599f9dd39"
SCORES = ("motor_UPDRS", "total_UPDRS")
GAP = 0.5  # days without a recording that begin a new visit

DESCR = """\
Parkinson's telemonitoring
==========================

**Provenance.** 42 people with early Parkinson's disease recorded a sustained vowel at home, about six times
on one day of each week, for half a year, in the trial of a telemonitoring device at ten US medical centres
and Intel (A. Tsanas, M. Little, P. McSharry and L. Ramig). UCI repository, Parkinsons Telemonitoring.

**Rows, task, target.** 5,875 recordings; a task is a patient (42; 101 to 168 recordings each); the target is
a clinical score, in points: `motor_UPDRS` (the motor section of the Unified Parkinson's Disease Rating Scale,
5 to 40 here) or `total_UPDRS` (7 to 55 here). Higher is worse. Neither score is in `data`, since each nearly
gives the other away.

`time` is `test_time`. `blocks` numbers a patient's visits from 0 in the order of time: a visit is a run of
recordings less than half a day apart (990 visits, 17 to 28 a patient). `sensitive` is the sex.

**Columns of `data`.**

    age             years
    sex             0 male, 1 female; 14 of the 42 are women
    test_time       days since recruitment; negative in 12 rows, recorded before it
    Jitter(%), Jitter:RAP, Jitter:PPQ5, Jitter:DDP
                    variation of the fundamental period, as a share of it
    Jitter(Abs)     the same, in seconds
    Shimmer, Shimmer:APQ3, Shimmer:APQ5, Shimmer:APQ11, Shimmer:DDA
                    variation of the amplitude, as a share of it
    Shimmer(dB)     the same, in decibels
    NHR             noise-to-harmonics ratio
    HNR             harmonics-to-noise ratio, decibels
    RPDE            recurrence period density entropy, 0 to 1
    DFA             exponent of detrended fluctuation analysis
    PPE             pitch period entropy

`subject#` is left out of `data`; it is the task.

**Known problems.** The score was taken in the clinic only at the start, after three and after six months;
between, it is *linearly interpolated* to the day of each recording. So the target is nearly a straight line
in `test_time` for each patient (bent once), recordings of a visit mostly share one value, and a random split
into support and query asks for a value that the support all but contains. Keep visits together (`blocks`) and
report two settings: support drawn at random, and support = one recording from each of the first visits.
`Jitter:DDP` is three times `Jitter:RAP`, and `Shimmer:DDA` three times `Shimmer:APQ3`.

**Harms.** 42 volunteers at an early stage, in one country: no basis to judge a person's illness. A voice
identifies its speaker, and a score from it would be health data taken without a clinician. For the study of
methods.

**Licence.** CC BY 4.0. Cite A. Tsanas and M. Little (2009), Parkinsons Telemonitoring, UCI Machine Learning
Repository, doi:10.24432/C5ZS3N; A. Tsanas, M. A. Little, P. E. McSharry and L. O. Ramig (2010), IEEE
Transactions on Biomedical Engineering 57, 884-893.
"""


def fetch_parkinsons_telemonitoring(
    *, target: str = "motor_UPDRS", data_home: str | os.PathLike[str] | None = None
) -> Bunch:
    """Load voice recordings of 42 patients with Parkinson's disease, downloading them once if need be.

    Predict the clinical score on the day of a recording from measures of the voice. A task is a patient.

    Parameters
    ----------
    target : {"motor_UPDRS", "total_UPDRS"}, default="motor_UPDRS"
        Which score to predict; the other one is left out.
    data_home : path, default=None
        Folder that holds, or will hold, ``parkinsons/parkinsons_updrs.data``. Where the file is not in it,
        the folder named by the environment variable ``FEWSHOT_DATA`` is searched, then it is downloaded from
        UCI into `data_home`; None stands for pooch's cache folder. The file is checked by SHA-256.

    Returns
    -------
    Bunch
        ``data``
            DataFrame of shape (5875, 19): age, sex, `test_time` and 16 measures of the voice.
        ``target``
            Series of shape (5875,), named as the score, in points.
        ``tasks``
            Series ``subject#``, int: 42 patients.
        ``blocks``
            Series ``visit``, int: number of the visit within the patient, from 0.
        ``time``
            Series ``test_time``, float: days since recruitment.
        ``sensitive``
            Series ``sex``: "female" or "male".
        ``feature_names``
            List of the columns of ``data``.
        ``DESCR``
            Provenance, units, licence, known problems: scores are interpolated between three clinic visits.

    Raises
    ------
    InvalidParameterError
        If `target` is not one of the two scores.
    DataNotFoundError
        If the file is neither on disk nor can be downloaded; the message says where to put it.
    InvalidDataError
        If the file's checksum is wrong.
    MissingDependencyError
        If a download is needed and pooch, of the extra `data`, is not installed.

    References
    ----------
    A. Tsanas, M. A. Little, P. E. McSharry and L. O. Ramig (2010). Accurate telemonitoring of Parkinson's
    disease progression by noninvasive speech tests. IEEE Transactions on Biomedical Engineering 57, 884-893.

    Examples
    --------
    >>> parkinsons = fetch_parkinsons_telemonitoring(target="total_UPDRS")  # doctest: +SKIP
    >>> parkinsons.data.shape, parkinsons.tasks.nunique()  # doctest: +SKIP
    ((5875, 19), 42)
    """
    if target not in SCORES:
        raise InvalidParameterError(f"target: got {target!r}; expected 'motor_UPDRS' or 'total_UPDRS'.")
    frame = pd.read_csv(find_file("parkinsons", NAME, URL, SHA256, data_home))
    data = frame.drop(columns=["subject#", *SCORES])
    return Bunch(
        data=data,
        target=frame[target],
        tasks=frame["subject#"].astype(np.int64),
        blocks=visit_numbers(frame["subject#"], frame["test_time"]),
        time=frame["test_time"],
        sensitive=frame["sex"].map({0: "male", 1: "female"}),
        feature_names=list(data.columns),
        DESCR=DESCR,
    )


def visit_numbers(patient: pd.Series, time: pd.Series) -> pd.Series:
    """Count each patient's visits from 0; a gap of half a day or more begins a new one.

    Parameters
    ----------
    patient : Series of shape (rows,)
        Patient of each row.
    time : Series of shape (rows,)
        Time of each row in days, in any order and of either sign.

    Returns
    -------
    Series of int, shape (rows,)
        In the order of the rows given.

    Examples
    --------
    >>> visit_numbers(pd.Series([1, 1, 1, 2]), pd.Series([7.0, -0.3, 0.1, 7.1])).to_list()
    [1, 0, 0, 0]
    """
    ordered = pd.DataFrame({"patient": patient, "time": time}).sort_values(["patient", "time"], kind="stable")
    begins = ordered.groupby("patient")["time"].diff() >= GAP
    visits = begins.astype(np.int64).groupby(ordered["patient"]).cumsum()
    return visits.reindex(patient.index).rename("visit")
