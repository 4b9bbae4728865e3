"""Violent crime in American communities: a task is a state, a row is a community."""

from __future__ import annotations

import hashlib
import os
import zipfile

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from fewshot.errors import InvalidDataError

from ._sources import download, find_on_disk

__all__ = ["fetch_communities_crime"]

FOLDER, NAME = "communities_crime", "communities_and_crime_unnormalized.csv"
SHA256 = "7eebf2442bf0cd253db696e740eb5b7654a2bbded66fd8bf2d65b56e435141ce"
URL = "https://archive.ics.uci.edu/static/public/211/communities+and+crime+unnormalized.zip"
TARGET = "ViolentCrimesPerPop"
IDENTIFIERS = ["communityname", "state", "countyCode", "communityCode", "fold"]
RACES = ["racepctblack", "racePctWhite", "racePctAsian", "racePctHisp"]
# Of the numbers, whichever file they are from.
CONTENT = "637cdc6f57b7637320ccbcedf71389d78386329b5af2061f98089a48d867f957"
NAMES = """
population householdsize racepctblack racePctWhite racePctAsian racePctHisp agePct12t21 agePct12t29 agePct16t24
agePct65up numbUrban pctUrban medIncome pctWWage pctWFarmSelf pctWInvInc pctWSocSec pctWPubAsst pctWRetire medFamInc
perCapInc whitePerCap blackPerCap indianPerCap AsianPerCap OtherPerCap HispPerCap NumUnderPov PctPopUnderPov
PctLess9thGrade PctNotHSGrad PctBSorMore PctUnemployed PctEmploy PctEmplManu PctEmplProfServ PctOccupManu
PctOccupMgmtProf MalePctDivorce MalePctNevMarr FemalePctDiv TotalPctDiv PersPerFam PctFam2Par PctKids2Par
PctYoungKids2Par PctTeen2Par PctWorkMomYoungKids PctWorkMom NumIlleg PctIlleg NumImmig PctImmigRecent PctImmigRec5
PctImmigRec8 PctImmigRec10 PctRecentImmig PctRecImmig5 PctRecImmig8 PctRecImmig10 PctSpeakEnglOnly PctNotSpeakEnglWell
PctLargHouseFam PctLargHouseOccup PersPerOccupHous PersPerOwnOccHous PersPerRentOccHous PctPersOwnOccup
PctPersDenseHous PctHousLess3BR MedNumBR HousVacant PctHousOccup PctHousOwnOcc PctVacantBoarded PctVacMore6Mos
MedYrHousBuilt PctHousNoPhone PctWOFullPlumb OwnOccLowQuart OwnOccMedVal OwnOccHiQuart OwnOccQrange RentLowQ
RentMedian RentHighQ RentQrange MedRent MedRentPctHousInc MedOwnCostPctInc MedOwnCostPctIncNoMtg NumInShelters
NumStreet PctForeignBorn PctBornSameState PctSameHouse85 PctSameCity85 PctSameState85 LemasSwornFT LemasSwFTPerPop
LemasSwFTFieldOps LemasSwFTFieldPerPop LemasTotalReq LemasTotReqPerPop PolicReqPerOffic PolicPerPop RacialMatchCommPol
PctPolicWhite PctPolicBlack PctPolicHisp PctPolicAsian PctPolicMinor OfficAssgnDrugUnits NumKindsDrugsSeiz
PolicAveOTWorked LandArea PopDens PctUsePubTrans PolicCars PolicOperBudg LemasPctPolicOnPatr LemasGangUnitDeploy
LemasPctOfficDrugUn PolicBudgPerPop
"""
PREDICTORS = NAMES.split()
SHARED = PREDICTORS[:-2]  # the derived file lacks the last two

DESCR = """\
Communities and Crime, unnormalised
===================================

**Provenance.** Communities of the USA with figures from the census of 1990, the police survey LEMAS of 1990
and crimes recorded by the police in 1995 (FBI). UCI Machine Learning Repository, Communities and Crime
(Unnormalized), donated by M. Redmond.

**Rows, task, target.** 1,994 communities whose violent crimes are known (221 others are left out); a task
is a state (46; 1 to 278 communities each); the target is 1 if a community's violent crimes per 100,000
people are at or below the median of its state: the favourable outcome. `sensitive` is "black" if the share
of black people is above those of Asian and of Hispanic ones, so that it is the largest, or second to the
white one alone (43 % of rows), and "other" if not.

**Columns of `data`.** 96 figures without a missing value, under UCI's names, where each is explained:

    population, householdsize, agePct12t21, agePct12t29, agePct16t24, agePct65up, numbUrban, pctUrban,
    medIncome, pctWWage, pctWFarmSelf, pctWInvInc, pctWSocSec, pctWPubAsst, pctWRetire, medFamInc,
    perCapInc, whitePerCap, blackPerCap, indianPerCap, AsianPerCap, HispPerCap, NumUnderPov, PctPopUnderPov,
    PctLess9thGrade, PctNotHSGrad, PctBSorMore, PctUnemployed, PctEmploy, PctEmplManu, PctEmplProfServ,
    PctOccupManu, PctOccupMgmtProf, MalePctDivorce, MalePctNevMarr, FemalePctDiv, TotalPctDiv, PersPerFam,
    PctFam2Par, PctKids2Par, PctYoungKids2Par, PctTeen2Par, PctWorkMomYoungKids, PctWorkMom, NumIlleg,
    PctIlleg, NumImmig, PctImmigRecent, PctImmigRec5, PctImmigRec8, PctImmigRec10, PctRecentImmig,
    PctRecImmig5, PctRecImmig8, PctRecImmig10, PctSpeakEnglOnly, PctNotSpeakEnglWell, PctLargHouseFam,
    PctLargHouseOccup, PersPerOccupHous, PersPerOwnOccHous, PersPerRentOccHous, PctPersOwnOccup,
    PctPersDenseHous, PctHousLess3BR, MedNumBR, HousVacant, PctHousOccup, PctHousOwnOcc, PctVacantBoarded,
    PctVacMore6Mos, MedYrHousBuilt, PctHousNoPhone, PctWOFullPlumb, OwnOccLowQuart, OwnOccMedVal,
    OwnOccHiQuart, OwnOccQrange, RentLowQ, RentMedian, RentHighQ, RentQrange, MedRent, MedRentPctHousInc,
    MedOwnCostPctInc, MedOwnCostPctIncNoMtg, NumInShelters, NumStreet, PctForeignBorn, PctBornSameState,
    PctSameHouse85, PctSameCity85, PctSameState85, LandArea, PopDens, PctUsePubTrans

**What was changed.** Left out: identifiers; columns with missing values (the police survey's, and the
income per head of "other" races); and the four shares of races. Columns that are about race or descent
otherwise (incomes by race, immigration, language) stayed: a model can tell the groups apart by them. The
derived file that is read where it is at hand lacks the names OwnOccQrange and RentQrange, so that the names
after them stand one or two columns too far left, and it swaps the codes of county and community. The names
here are those that fit the numbers (OwnOccQrange is OwnOccHiQuart less OwnOccLowQuart, and so on).

**Known problems.** Crimes are those that the police recorded, which depends on where it looks and on who
reports. The target compares communities of one state: in most states half of them are favourable whatever
the level. Rents end at 1,001 dollars. Communities are not people: nothing here says anything about a
person.

**Harms.** Predicting crime by place from such data has sent police to where it had been before. The groups
are shares of a population, as the census of 1990 named races. For the study of methods only.

**Licence.** CC BY 4.0. Cite M. Redmond (2011), Communities and Crime Unnormalized, UCI Machine Learning
Repository, doi:10.24432/C5PC8X; M. Redmond and A. Baveja (2002), European Journal of Operational Research
141.
"""


def fetch_communities_crime(*, data_home: str | os.PathLike[str] | None = None) -> Bunch:
    """Load violent crime in communities of 46 American states, downloading it once if need be.

    Predict from a community's census figures whether its rate of violent crimes is at or below the median of its state. A task is a
    state.

    Parameters
    ----------
    data_home : path, default=None
        Folder that holds ``communities_crime/communities_and_crime_unnormalized.csv``; where it is not in it, the folder named by
        the environment variable ``FEWSHOT_DATA`` is searched, and then the original is downloaded from UCI into `data_home`
        (None: pooch's cache folder) and brought to the same columns.

    Returns
    -------
    Bunch
        ``data``
            DataFrame of shape (1994, 96), float; see ``DESCR``.
        ``target``
            Series ``low_crime`` of shape (1994,): 1 at or below the state's median, 0 above.
        ``tasks``
            Series ``state``: two letters; 46 states.
        ``sensitive``
            Series ``group``: "black" or "other".
        ``feature_names``
            List of the columns of ``data``.
        ``DESCR``
            Provenance, licence, known problems and harms.

    Raises
    ------
    DataNotFoundError
        If the file is neither on disk nor can be downloaded.
    InvalidDataError
        If the content is not the expected one.
    MissingDependencyError
        If a download is needed and pooch, of the extra `data`, is not installed.

    References
    ----------
    M. Redmond and A. Baveja (2002). A data-driven software tool for enabling cooperative information sharing among police
    departments. European Journal of Operational Research 141, 660-678.

    Examples
    --------
    >>> communities = fetch_communities_crime()  # doctest: +SKIP
    >>> communities.data.shape, communities.tasks.nunique()  # doctest: +SKIP
    ((1994, 96), 46)
    """
    path = find_on_disk(FOLDER, NAME, URL, SHA256, data_home)
    frame = _original(data_home) if path is None else _derived(path)
    frame = frame[frame[TARGET].notna()].reset_index(drop=True)
    black, _, asian, hispanic = (frame[name] for name in RACES)
    data = frame[SHARED].dropna(axis=1).drop(columns=RACES).astype(np.float64)
    state = frame["state"].astype(str)
    return Bunch(
        data=data,
        target=(frame[TARGET] <= frame[TARGET].groupby(state).transform("median")).astype(np.int64).rename("low_crime"),
        tasks=state,
        sensitive=pd.Series(np.where(black > np.maximum(asian, hispanic), "black", "other"), name="group"),
        feature_names=list(data.columns),
        DESCR=DESCR,
    )


def _derived(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the derived file, whose names do not fit its columns."""
    frame = pd.read_csv(path, na_values="?", index_col=0)
    frame.columns = pd.Index([*IDENTIFIERS, *SHARED, TARGET])
    return frame


def _original(data_home: str | os.PathLike[str] | None) -> pd.DataFrame:
    """Bring the original to the columns of the derived file."""
    path = download(FOLDER, "unnormalized.zip", URL, None, data_home)
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("Data.txt")]
        with archive.open(name) as file:
            frame = pd.read_csv(file, header=None, na_values="?", encoding="latin-1")
    target = frame.columns[-2]  # the last is the rate of other crimes
    frame = frame.iloc[:, [*range(len(IDENTIFIERS) + len(SHARED)), target]]
    frame.columns = pd.Index([*IDENTIFIERS, *SHARED, TARGET])
    if fingerprint(frame) != CONTENT:
        raise InvalidDataError(
            f"{path}: the numbers are not the expected ones; remove the file and try again, or put a good "
            f"{FOLDER}/{NAME} into the folder that FEWSHOT_DATA names."
        )
    return frame


def fingerprint(frame: pd.DataFrame) -> str:
    """Checksum of the numbers, rounded to six digits, and of the states."""
    numbers = np.round(np.nan_to_num(frame[[*SHARED, TARGET]].to_numpy(np.float64), nan=-1.0), 6)
    return hashlib.sha256(numbers.tobytes() + "".join(frame["state"]).encode()).hexdigest()
