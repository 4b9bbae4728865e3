"""Heart disease in four hospitals: a task is a hospital, a row is a patient sent to coronary angiography."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ._sources import find_file

__all__ = ["fetch_heart_disease"]

URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease/"
SHA256 = {
    "cleveland": "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
    "hungarian": "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
    "switzerland": "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
    "va": "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
}
FEATURES = [
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
]

DESCR = """\
Heart disease in four hospitals
===============================

**Provenance.** Patients sent to coronary angiography in the 1980s at the Cleveland Clinic Foundation, the
Hungarian Institute of Cardiology (Budapest), the university hospitals of Zurich and Basel, and the V.A.
Medical Center (Long Beach). The four "processed" files of the UCI repository's Heart Disease data;
investigators A. Janosi, W. Steinbrunn, M. Pfisterer and R. Detrano, who ask to be named.

**Rows, task, target.** 920 patients; a task is a hospital; the target is 1 if angiography found a narrowing
of more than half of a vessel's diameter (`num` > 0 in the files) and 0 otherwise. `sensitive` is the sex.

    task           patients   with disease
    cleveland           303        139
    hungarian           294        106
    switzerland         123        115
    va                  200        149

**Columns of `data`.** Original names and codes; missing values are NaN.

    age        years
    sex        0 female, 1 male
    cp         chest pain: 1 typical angina, 2 atypical angina, 3 other pain, 4 none
    trestbps   blood pressure at rest on admission, mmHg
    chol       serum cholesterol, mg/dl
    fbs        fasting blood sugar above 120 mg/dl, 0/1
    restecg    electrocardiogram at rest: 0 normal, 1 ST-T abnormality, 2 left ventricular hypertrophy
    thalach    highest heart rate in the exercise test, beats per minute
    exang      angina in the exercise test, 0/1
    oldpeak    ST depression by exercise relative to rest, mm (negative: elevation)
    slope      slope of the ST segment at peak exercise: 1 up, 2 flat, 3 down
    ca         number of large vessels coloured by fluoroscopy, 0 to 3
    thal       thallium scan: 3 normal, 6 fixed defect, 7 reversible defect

`cp`, `restecg`, `slope` and `thal` are codes, not quantities.

**What was changed.** A `chol` or `trestbps` of 0 is impossible in a living patient and means "not measured":
all 123 Swiss and 49 Long Beach values of `chol`, and one `trestbps`, became NaN.

**Known problems.** Switzerland has 8 patients without disease among 123, so a score on that task rests on
eight people. Which columns are missing is nearly the hospital's signature: `chol` is always missing in
Switzerland, `ca` in 607 of the 617 patients outside Cleveland. `ca` and `thal` come from examinations close
to the diagnosis itself. Two pairs of rows are equal. Grades of `num` are not comparable between hospitals
(Budapest only has 0 and 1).

**Harms.** Selected patients (already sent to angiography), mostly men, forty years ago: prevalence and
accuracy do not carry over to other patients, least of all to women. Not for decisions on patients.

**Licence.** CC BY 4.0. Cite A. Janosi, W. Steinbrunn, M. Pfisterer and R. Detrano (1989), Heart Disease, UCI
Machine Learning Repository, doi:10.24432/C52P4X; R. Detrano et al. (1989), American Journal of Cardiology 64,
304-310.
"""


def fetch_heart_disease(*, data_home: str | os.PathLike[str] | None = None) -> Bunch:
    """Load the heart-disease data of four hospitals, downloading them once if need be.

    Predict from an examination whether coronary angiography finds a narrowed vessel. A task is a hospital.

    Parameters
    ----------
    data_home : path, default=None
        Folder that holds, or will hold, ``heart_disease/processed.*.data``. Where the files are not in it,
        the folder named by the environment variable ``FEWSHOT_DATA`` is searched, then they are downloaded
        from UCI into `data_home`; None stands for pooch's cache folder. Every file is checked by SHA-256.

    Returns
    -------
    Bunch
        ``data``
            DataFrame of shape (920, 13), all float, missing values NaN.
        ``target``
            Series ``disease`` of shape (920,): 1 disease, 0 none.
        ``tasks``
            Series ``hospital``: "cleveland", "hungarian", "switzerland" or "va".
        ``sensitive``
            Series ``sex``: "female" or "male".
        ``feature_names``
            List of the columns of ``data``.
        ``DESCR``
            Provenance, codes and units, licence, known problems.

    Raises
    ------
    DataNotFoundError
        If a file is neither on disk nor can be downloaded; the message says where to put it.
    InvalidDataError
        If a file's checksum is wrong.
    MissingDependencyError
        If a download is needed and pooch, of the extra `data`, is not installed.

    References
    ----------
    R. Detrano et al. (1989). International application of a new probability algorithm for the diagnosis of
    coronary artery disease. American Journal of Cardiology 64, 304-310.

    Examples
    --------
    >>> heart = fetch_heart_disease()  # doctest: +SKIP
    >>> heart.tasks.value_counts().to_dict()  # doctest: +SKIP
    {'cleveland': 303, 'hungarian': 294, 'va': 200, 'switzerland': 123}
    """
    parts = {}
    for hospital, sha256 in SHA256.items():
        name = f"processed.{hospital}.data"
        path = find_file("heart_disease", name, URL + name, sha256, data_home)
        parts[hospital] = pd.read_csv(path, header=None, names=[*FEATURES, "num"], na_values="?", dtype=np.float64)
    frame = pd.concat(parts, names=["hospital"]).reset_index("hospital").reset_index(drop=True)
    data = frame[FEATURES].copy()
    for column in ("chol", "trestbps"):
        data[column] = data[column].mask(data[column] == 0)
    return Bunch(
        data=data,
        target=(frame["num"] > 0).astype(np.int64).rename("disease"),
        tasks=frame["hospital"],
        sensitive=data["sex"].map({1.0: "male", 0.0: "female"}),
        feature_names=list(data.columns),
        DESCR=DESCR,
    )
