"""Fair classifiers come back from files as they were."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import fewshot
from fewshot import MAMLClassifier
from fewshot.applications.fairness import FairnessConstrainedClassifier, curve

QUICK = MAMLClassifier(algorithm="map", base=LogisticRegression(), random_state=0)


def table(seed=0):
    rng = np.random.default_rng(seed)
    task, group = np.repeat(np.arange(8), 50), rng.choice(["a", "b"], 400)
    x = rng.normal(size=(400, 3)) - (group == "b")[:, None]
    return x, (x[:, 0] + rng.normal(size=400) > -0.5).astype(int), task, group


@pytest.mark.parametrize(
    ("settings", "learned"), [({}, False), ({}, True), ({"constraint": "bounded_group_loss", "bound": 0.5}, False)]
)
def test_files(tmp_path, settings, learned, monkeypatch):
    if learned:
        # Where the group is not told, take the decisions that are learned whether they are better or not.
        monkeypatch.setattr(curve, "_cost", lambda points: -len(points[-1].blend))
    x, y, task, group = table()
    model = FairnessConstrainedClassifier(**settings, classifier=QUICK, random_state=0)
    model = model.fit_meta(x, y, tasks=task, sensitive_features=group)
    if learned:
        assert len(model._deciders["unknown"].others) > 1
    few = np.arange(400) % 50 < 8
    adapted = model.adapt(
        x[few],
        y[few],
        tasks=task[few],
        sensitive_features=group[few],
        X_unlabelled=x[~few],
        sensitive_unlabelled=group[~few],
        tasks_unlabelled=task[~few],
    )
    for one, columns in ((model, {}), (adapted, {"tasks": task})):
        one.predict(x, **columns)  # a model in use can be saved too
        fewshot.save(one, tmp_path / "model")
        loaded = fewshot.load(tmp_path / "model")
        assert str(loaded.constraint_report_) == str(one.constraint_report_)
        for told in ({}, {"sensitive_features": group}):
            np.testing.assert_array_equal(
                loaded.predict_proba(x, **columns, **told), one.predict_proba(x, **columns, **told)
            )
    if not settings:
        loose = loaded.with_bound(0.5)  # and goes on as before
        np.testing.assert_array_equal(loose.predict(x, tasks=task), adapted.with_bound(0.5).predict(x, tasks=task))
