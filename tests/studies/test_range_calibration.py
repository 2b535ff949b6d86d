"""Calibration of a range test: what is measured of own samples needs no more memory than a batch of them."""

import numpy as np
import pytest
import torch

from latlas.data.images import ImageSet
from latlas.numerics.moments import MarginalMoments
from latlas.studies import range_calibration


def test_the_spread_of_own_samples_is_taken_by_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a whole set it would be: the mean square about the mean image."""
    asked: list[int] = []
    monkeypatch.setattr("latlas.studies.range_calibration.images_at_once", lambda shape: 3)
    of = MarginalMoments.of
    monkeypatch.setattr(MarginalMoments, "of", lambda rows: asked.append(len(rows)) or of(rows))
    images = ImageSet("own", torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    moments = range_calibration._pixel_moments(images)
    assert asked == [3, 3, 3, 1]
    assert float(moments.variance().mean()) == pytest.approx(np.var(images.tensor().double().numpy(), axis=0).mean(), rel=1e-12)
