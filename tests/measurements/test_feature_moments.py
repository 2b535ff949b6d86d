"""Moments of features: NumPy's of all images at once, however few are looked at together."""

import numpy as np
import pytest
import torch

from latlas.base.errors import IllPosedError
from latlas.data.images import ImageSet
from latlas.measurements.feature_moments import feature_moments
from latlas.measurements.features import CallableFeatures, RawPixels


@pytest.mark.parametrize("batch", [1, 4, 21, 500])
def test_they_are_numpys_of_the_pixels_in_the_unit_interval(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(0, 256, (50, 1, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    monkeypatch.setattr("latlas.measurements.feature_moments._BATCH", batch)
    found = feature_moments(RawPixels((1, 2, 3)), ImageSet("some", pixels))
    rows = pixels.flatten(1).numpy() / 255
    assert found.count == 50
    np.testing.assert_allclose(found.mean.numpy(), rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.covariance(ddof=1).numpy(), np.cov(rows.T), rtol=1e-5, atol=1e-9)


def test_no_images_have_none() -> None:
    network = CallableFeatures(name="none", size=4, compute_with=lambda images: images.flatten(1))
    with pytest.raises(IllPosedError, match="holds no images"):
        feature_moments(network, ImageSet("nothing", torch.zeros(0, 1, 2, 2)))
