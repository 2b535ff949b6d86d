"""Which feature network a distance is taken with: by name, or the one that suits the images."""

from pathlib import Path

from latlas.base.errors import SettingError, unknown_name
from latlas.data.images import ImageSet
from latlas.measurements.classifier import DigitsClassifier
from latlas.measurements.features import EfficientNetLite0Features, FeatureNetwork, RawPixels
from latlas.measurements.inception import InceptionFeatures
from latlas.models.given import described

FEATURES = ("auto", "digits", "fashion", "efficientnet", "pixels")
_DIGITS_SHAPE = (1, 28, 28)


def check_features(given: object) -> None:
    """Raise unless something takes features: called with images it returns n x size numbers, and it has a name and that size.

    Raises:
        SettingError: it does not; says how to find one that does.
    """
    if callable(given) and hasattr(given, "name") and hasattr(given, "size"):
        return
    if isinstance(given, str):
        cure = f"Find it: latlas.studies.features.feature_network({given!r}, images)."
    else:
        cure = (
            "Called with images it returns n x size features, and it has a name and that size: see "
            "latlas.measurements.features.CallableFeatures."
        )
    raise SettingError(f"Features are taken by a network, got {described(given)}. {cure}")


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
