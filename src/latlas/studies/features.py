"""Which feature network a distance is taken with: by name, or the one that suits the images."""

from pathlib import Path

from latlas.base.errors import unknown_name
from latlas.data.images import ImageSet
from latlas.measurements.classifier import DigitsClassifier
from latlas.measurements.features import EfficientNetLite0Features, FeatureNetwork, RawPixels
from latlas.measurements.inception import InceptionFeatures

FEATURES = ("auto", "digits", "fashion", "efficientnet", "pixels")
_DIGITS_SHAPE = (1, 28, 28)


def feature_network(name: str, images: ImageSet) -> FeatureNetwork:
    """Return a feature network.

    Args:
        name: "digits" and "fashion" (small classifiers that latlas carries), "efficientnet" (EfficientNet-Lite0, the extra
            `features`), "pixels", a path to an Inception checkpoint file, or "auto": the digits classifier for 28 x 28 grey
            images (the Fashion one where the set is called so), else EfficientNet-Lite0.
        images: that it will see; decides "auto".

    Raises:
        UnknownNameError: no such network and no such file.
        MissingExtraError: the extra that carries it is not installed.
    """
    if name == "auto":
        if tuple(images.image_shape) != _DIGITS_SHAPE:
            return EfficientNetLite0Features(side=96)
        return DigitsClassifier.bundled("fashion-mnist" if "fashion" in images.name else "mnist")
    if name == "digits":
        return DigitsClassifier.bundled("mnist")
    if name == "fashion":
        return DigitsClassifier.bundled("fashion-mnist")
    if name == "efficientnet":
        return EfficientNetLite0Features()
    if name == "pixels":
        return RawPixels(images.image_shape)
    if Path(name).is_file():
        return InceptionFeatures(name)
    raise unknown_name("feature network", name, FEATURES, hint="Or give an Inception checkpoint file.")
