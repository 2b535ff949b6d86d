"""`fit_map` under scikit-learn's verbs, so that cross-validation, grid search and pipelines take it. Imports scikit-learn."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from latlas.base.errors import LatlasError
from latlas.maps.fit import fit_map, fit_map_from, paired_moments_of
from latlas.maps.linear import LinearMap


class LinearMapRegressor(MultiOutputMixin, TransformerMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """A linear map as a scikit-learn regressor: one that predicts target codes from source codes.

    Args:
        kind: "affine", "orthogonal", "orthogonalised" or "reduced-rank", as in `fit_map`.
        ridge: a number, "gcv", "loo" or None.
        bias: whether the map has an intercept.
        rank: of a reduced-rank map.

    Attributes:
        map_: the fitted LinearMap, with its evidence and warnings.
        coef_: weights, `targets features` (or `features` where y was a vector).
        intercept_: shift, `targets` (or a number).

    >>> from sklearn.model_selection import cross_val_score
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> float(cross_val_score(LinearMapRegressor(), x, x @ np.ones((3, 2)) + 5, cv=3).min()) > 0.999
    True
    """

    def __init__(self, *, kind: Any = "affine", ridge: Any = None, bias: Any = True, rank: Any = None) -> None:
        # scikit-learn's rules: keep what comes, whatever it is, and judge it when fitting.
        self.kind = kind
        self.ridge = ridge
        self.bias = bias
        self.rank = rank

    def fit(self, X: Any, y: Any) -> "LinearMapRegressor":
        """Fit the map from rows of X to rows of y.

        Args:
            X: source codes, `n features`.
            y: target codes, `n targets`, or one number a row.

        Raises:
            ValueError: whatever `fit_map` refuses, in its words: that is what scikit-learn's tools catch.
        """
        source, target = validate_data(
            self, X, y, multi_output=True, y_numeric=True, dtype=[np.float64, np.float32], ensure_min_samples=2
        )
        self._vector = target.ndim == 1
        rows = _tensor(source), _tensor(target.reshape(len(target), -1))
        settings = {"kind": self.kind, "ridge": self.ridge, "bias": self.bias, "rank": self.rank}
        try:
            # From moments, where that will do: a fold's provenance is not worth the time of hashing its rows.
            self.map_: LinearMap = (
                fit_map(*rows, **settings) if self.ridge == "loo" else fit_map_from(paired_moments_of([rows]), **settings)
            )
        except LatlasError as failure:
            raise ValueError(str(failure)) from failure
        weight, shift = self.map_.weight.numpy().T, self.map_.bias.numpy()
        self.coef_: NDArray[Any] = weight[0] if self._vector else weight
        self.intercept_: NDArray[Any] | float = float(shift[0]) if self._vector else shift
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the target codes of rows of X, in their type: `n targets`, or `n` where y was a vector."""
        check_is_fitted(self)
        source = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        predicted: NDArray[Any] = self.map_.apply(_tensor(source)).numpy()
        return predicted[:, 0] if self._vector else predicted

    def transform(self, X: Any) -> NDArray[Any]:
        """Return `predict` as columns, for a pipeline that goes on in the target's space."""
        predicted = self.predict(X)
        return predicted.reshape(len(predicted), -1)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:  # noqa: ARG002 - its signature
        """Return a name for each column of `transform`."""
        check_is_fitted(self)
        return np.asarray([f"linearmap{index}" for index in range(self.map_.target_size)], dtype=object)


def _tensor(rows: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows) if rows.flags.writeable else np.array(rows))
