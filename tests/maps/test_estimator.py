"""The estimator: scikit-learn's own checks, its cross-validation tools, and the map that `fit_map` gives."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from latlas.maps.estimator import LinearMapRegressor
from latlas.maps.fit import fit_map

SETTINGS: list[dict[str, Any]] = [
    {},
    {"ridge": 1.0},
    {"ridge": "gcv", "bias": False},
    {"ridge": "loo"},
    {"kind": "orthogonal"},
    {"kind": "orthogonalised", "ridge": 1.0},
    {"kind": "reduced-rank", "rank": 1, "ridge": 1.0},
]


def data(n: int = 60, source: int = 5, target: int = 3, *, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, source)) + 1.5
    return x, x @ random.normal(size=(source, target)) - 2 + noise * random.normal(size=(n, target))


@parametrize_with_checks([LinearMapRegressor(**settings) for settings in SETTINGS])
def test_it_is_an_estimator_by_scikit_learns_own_checks(estimator: LinearMapRegressor, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_predicts_what_the_map_gives(settings: dict[str, Any]) -> None:
    x, y = data()
    fitted = LinearMapRegressor(**settings).fit(x, y)
    there = fit_map(torch.from_numpy(x), torch.from_numpy(y), **settings)
    assert fitted.map_.weight.equal(there.weight)
    np.testing.assert_array_equal(fitted.predict(x), there.apply(torch.from_numpy(x)).numpy())
    np.testing.assert_allclose(x @ fitted.coef_.T + fitted.intercept_, fitted.predict(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(fitted.transform(x), fitted.predict(x))
    assert fitted.map_.evidence == there.evidence
    assert (
        clone(fitted).get_params()
        == fitted.get_params()
        == {"kind": "affine", "ridge": None, "bias": True, "rank": None} | settings
    )


def test_a_vector_is_predicted_as_a_vector() -> None:
    x, y = data(target=1)
    fitted, theirs = LinearMapRegressor(ridge=2.0).fit(x, y[:, 0]), Ridge(alpha=2.0).fit(x, y[:, 0])
    assert fitted.predict(x).shape == (60,)
    np.testing.assert_allclose(fitted.predict(x), theirs.predict(x), rtol=1e-10)
    np.testing.assert_allclose(fitted.coef_, theirs.coef_, rtol=1e-10)
    assert fitted.score(x, y[:, 0]) == pytest.approx(theirs.score(x, y[:, 0]), rel=1e-10)
    assert fitted.transform(x).shape == (60, 1)


def test_float32_rows_come_back_in_float32() -> None:
    x, y = (rows.astype(np.float32) for rows in data())
    assert LinearMapRegressor().fit(x, y).predict(x).dtype == np.float32


def test_cross_validation_scores_it_as_it_scores_ridge() -> None:
    x, y = data()
    ours, theirs = (cross_val_score(one, x, y, cv=4) for one in (LinearMapRegressor(ridge=3.0), Ridge(alpha=3.0)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_grid_search_finds_the_rank_that_was_planted() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(120, 8))
    y = x @ random.normal(size=(8, 2)) @ random.normal(size=(2, 8)) + 3 * random.normal(size=(120, 8))
    search = GridSearchCV(LinearMapRegressor(kind="reduced-rank", rank=1), {"rank": [1, 2, 4, 8]}, cv=5).fit(x, y)
    assert search.best_params_ == {"rank": 2}
    settings = {"kind": ["affine", "orthogonal"], "ridge": [None]}
    assert GridSearchCV(LinearMapRegressor(), settings, cv=3).fit(*data()).best_params_["kind"] == "affine"


def test_it_is_a_step_of_a_pipeline_either_way() -> None:
    x, y = data()
    last = make_pipeline(StandardScaler(), LinearMapRegressor()).fit(x, y)
    np.testing.assert_allclose(last.predict(x), LinearMapRegressor().fit(x, y).predict(x), rtol=1e-9)
    first = make_pipeline(LinearMapRegressor(), StandardScaler()).fit(x, y)
    np.testing.assert_allclose(first.transform(x).std(axis=0), 1.0, rtol=1e-9)
    assert first.get_feature_names_out().tolist() == ["linearmap0", "linearmap1", "linearmap2"]


def test_rows_that_may_not_be_written_to_are_read() -> None:
    """As joblib hands them to its workers."""
    x, y = data()
    for rows in (x, y):
        rows.flags.writeable = False
    assert LinearMapRegressor().fit(x, y).score(x, y) > 0.9


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "afine"}, "Unknown kind of map 'afine'"),
        ({"ridge": -1.0}, "Ridge must be a finite number"),
        ({"kind": "reduced-rank", "rank": 9}, "rank of 1 to 3, got 9"),
    ],
)
def test_what_the_map_refuses_is_a_value_error_in_its_own_words(settings: dict[str, Any], words: str) -> None:
    """Which is what scikit-learn's tools catch, and score as NaN."""
    with pytest.raises(ValueError, match=words):
        LinearMapRegressor(**settings).fit(*data())


def test_too_few_rows_are_a_value_error_with_the_cure() -> None:
    x, y = data(n=4)
    with pytest.raises(ValueError, match=r"6 unknowns per target variable, and 4 pairs were given.*ridge='gcv'"):
        LinearMapRegressor().fit(x, y)
