"""What the explorer holds: models, each with images that it was made for, the same for every visitor."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar

from torch import nn

from latlas.base.errors import CapabilityError, LatlasError, SettingError, UnknownNameError, unknown_name
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.seeds import generator
from latlas.base.shapes import ImageShape
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.encodings.encoding import Encoding
from latlas.models.loading import load_model
from latlas.models.protocols import LatentModel, check_images, is_encoder, require_generator
from latlas.models.recoder import Recoder, with_recoder
from latlas.models.zoo import ZOO, read_options
from latlas.studies.range_calibration import own_samples
from latlas.training.precision import choose_device

T = TypeVar("T")

# What is shown where no model is named: those of them that the zoo has.
DEFAULT_MODELS = (
    "zoo:digits-dense",
    "zoo:digits-dense-1",
    "zoo:digits-conv",
    "zoo:digits-conv-1",
    "zoo:avatars-vae-32",
    "zoo:avatars-dcgan",
    "zoo:avatars-stylegan2#w",
    "zoo:avatars-vae",
    "zoo:avatars-split",
)
_DIGITS, _AVATARS = "mnist:test[0:2000]", "avatars:test[0:500]"
_LARGEST_AVATAR = 128  # pixels across: larger ones take minutes to draw
_OWN_SAMPLES = 500
_PURPOSE = "images of the explorer"


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """A model beside images of its shape."""

    label: str  # as the visitor chooses it
    model: LatentModel
    images: ImageSet
    known_codes: Encoding | None = None  # where the images are the model's own samples
    remark: str = ""  # what a visitor must know of the images

    @property
    def encodes(self) -> bool:
        """Whether the model gives codes to images."""
        return is_encoder(self.model)

    @property
    def draws(self) -> bool:
        """Whether the model draws codes of its own."""
        return draws_codes(self.model)


class Kept:
    """Results that are the same for every visitor: computed once, by whoever asks first, while others wait for them."""

    def __init__(self) -> None:
        self._values: dict[Hashable, object] = {}
        self._locks: dict[Hashable, Lock] = {}
        self._guard = Lock()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what is kept under a key; where nothing is, compute and keep it. A failure is not kept."""
        with self._guard:
            lock = self._locks.setdefault(key, Lock())
        with lock:
            if key not in self._values:
                self._values[key] = compute()
            return self._values[key]  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """The charts by label, and what has been measured of them so far."""

    charts: Mapping[str, Chart]
    kept: Kept = field(default_factory=Kept)

    def chart(self, label: str | None) -> Chart:
        """Return the chart of a label.

        Raises:
            UnknownNameError: there is none.
        """
        if label is None:
            raise UnknownNameError("Choose a model first.")
        if label not in self.charts:
            raise unknown_name("model of this page", label, self.charts)
        return self.charts[label]

    def comparable(self, label: str | None) -> list[str]:
        """Return the labels of the models whose images have the shape of this one's, itself last."""
        shape = tuple(self.chart(label).model.image_shape)
        others = [name for name, chart in self.charts.items() if tuple(chart.model.image_shape) == shape and name != label]
        return [*others, str(label)]


def draws_codes(model: LatentModel) -> bool:
    """Tell whether a model draws codes of its own."""
    try:
        require_generator(model, "Drawing")
    except CapabilityError:
        return False
    return True


def default_models() -> tuple[str, ...]:
    """Return those of `DEFAULT_MODELS` that the zoo has."""
    return tuple(spec for spec in DEFAULT_MODELS if read_options(spec.removeprefix("zoo:"))[0] in ZOO)


def open_atlas(
    models: Sequence[str] = (), *, data: Sequence[str] = (), device: str = "auto", progress: Progress = silent
) -> Atlas:
    """Load models and images.

    Args:
        models: MODEL specs; none: `default_models`, those for which the images are of the right shape. A generator of the zoo
            is joined by its recoder, where the zoo has one.
        data: DATA specs; each model gets the first whose images have its shape. None: digits or avatars, by the shape; where
            those cannot be had, the model's own samples.
        device: "auto", "cpu", "cuda", "cuda:1".
        progress: told in models.

    Raises:
        CapabilityError: a model does not decode, or neither encodes nor draws codes.
        ImageFormatError: no images of a model's shape.
        SettingError: a model is named twice, or no model fits the images.
        LatlasError: as `load_model` and `load_images` have it.
    """
    specs = tuple(models) or default_models()
    if len(set(specs)) != len(specs):
        raise SettingError(f"Each model is named once, got {', '.join(specs)}.")
    place = choose_device(device)
    charts: dict[str, Chart] = {}
    misfit: LatlasError | None = None
    for done, spec in enumerate(specs):
        progress("loading models", done, len(specs), spec)
        try:
            model = load_with_recoder(spec)
            if isinstance(model, nn.Module):
                model = model.to(place)
            charts[spec] = chart_of(model, label=spec, data=data, progress=progress)
        except LatlasError as failure:
            if models:
                raise
            misfit = failure  # of the models that nobody named, those that do not fit the images stay away
    progress("loading models", len(specs), len(specs))
    if not charts:
        raise SettingError(f"No model of the zoo fits: {misfit} Name a model that does.")
    return Atlas(charts=charts)


def load_with_recoder(spec: str) -> LatentModel:
    """Return the model of a spec; a generator of the zoo with the zoo's recoder for it, where there is one.

    Raises:
        LatlasError: as `load_model` has it.
    """
    model = load_model(spec)
    scheme, _, rest = spec.partition(":")
    if scheme != "zoo" or is_encoder(model):
        return model
    recoder = f"{read_options(rest)[0]}-recoder"
    if recoder not in ZOO:
        return model
    found = load_model(f"zoo:{recoder}")
    try:
        return with_recoder(require_generator(model, "A recoder"), found) if isinstance(found, Recoder) else model
    except CapabilityError:  # it inverts another latent space of this generator
        return model


def chart_of(model: LatentModel, *, label: str, data: Sequence[str] = (), progress: Progress = silent) -> Chart:
    """Return a model with images of its shape.

    Args:
        model: decodes, and encodes or draws codes.
        label: what to call it on the page.
        data: DATA specs, as `open_atlas` has them.
        progress: told while images are read.

    Raises:
        CapabilityError: the model does not decode, or neither encodes nor draws codes.
        ImageFormatError: no images of its shape.
        LatlasError: as `load_images` has it.
    """
    decodes = callable(getattr(model, "decode", None)) and "decode" not in getattr(model, "lacks", ())
    if not decodes or not (is_encoder(model) or draws_codes(model)):
        raise CapabilityError(f"{label} cannot be explored: a model must decode, and either encode or draw codes of its own.")
    _, height, width = model.image_shape
    side = height if height == width else None
    if data:
        found = [load_images(spec, size=side, progress=progress) for spec in data]
        fitting = [images for images in found if tuple(images.image_shape) == tuple(model.image_shape)]
        if not fitting:
            check_images(found[0].image_shape, model, name=found[0].name)
        return Chart(label=label, model=model, images=fitting[0])
    why = f"No images of {'x'.join(map(str, model.image_shape))} come with latlas: name some with --data"
    spec = default_data(model.image_shape)
    if spec is not None:
        try:
            return Chart(label=label, model=model, images=load_images(spec, size=side, progress=progress))
        except LatlasError as failure:
            why = f"{spec} could not be had ({failure})"
    if not draws_codes(model):
        raise CapabilityError(f"{label} needs images. {why}.")
    return _on_own_samples(model, label, why)


def default_data(shape: ImageShape) -> str | None:
    """Return the DATA spec for models of an image shape, or None where latlas has no such images.

    >>> default_data((1, 28, 28)), default_data((3, 64, 64)), default_data((1, 64, 64))
    ('mnist:test[0:2000]', 'avatars:test[0:500]', None)
    """
    channels, height, width = shape
    if (channels, height, width) == (1, 28, 28):
        return _DIGITS
    return _AVATARS if channels == 3 and height == width <= _LARGEST_AVATAR else None


def _on_own_samples(model: LatentModel, label: str, why: str) -> Chart:
    drawing = require_generator(model, "Exploring without images")
    images = own_samples(model, _OWN_SAMPLES, seed=0, purpose=_PURPOSE)
    codes = Encoding(
        mean=drawing.sample_codes(_OWN_SAMPLES, generator(0, _PURPOSE)).float().cpu(),  # those that own_samples has drawn
        log_variance=None,
        model=model.name,
        images=images.name,
        images_hash=images.content_hash,
        provenance=Provenance(made_by="explore", seed=0, made_from={"model": model.fingerprint}),
    )
    remark = f"{why}. What is shown as images are the model's own samples."
    return Chart(label=label, model=model, images=images, known_codes=codes, remark=remark)
