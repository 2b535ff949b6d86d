"""`diffusers:PLACE`: the autoencoders of latent diffusion, from a folder or the Hub, with their latents raw or scaled."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latlas.base.artifacts import CONFIG, read_json
from latlas.base.errors import ArtifactError, MissingExtraError, MissingPathError, SettingError
from latlas.base.hub import HubError, hub_id
from latlas.base.shapes import ImageShape, LatentShape
from latlas.models.adapters.modules import ModuleModel, read_images, read_posterior
from latlas.models.pretrained import bounded_parameters
from latlas.models.protocols import CodeScale

# Of diffusers' autoencoders, those that take images of one size alone and decode without being told anything else. All of
# them take and give images in [-1, 1]; AutoencoderTiny, made for [0, 1], converts inside. The codes of VQModel are those
# before quantisation.
CLASSES = (
    "AsymmetricAutoencoderKL",
    "AutoencoderDC",
    "AutoencoderKL",
    "AutoencoderKLFlux2",
    "AutoencoderKLHunyuanImage",
    "AutoencoderKLKVAE",
    "AutoencoderTiny",
    "VQModel",
)

_MOST_PARAMETERS = (
    4_000  # tensors of an autoencoder: a config that asks for more would build for hours; published ones have some 250
)
_MOST_COUNTED = 1_000_000  # channels, layers: of so many not even a model without memory is built in a second
_SIDE = 64  # of images, where neither the spec nor the config says
_WEIGHTS = "diffusion_pytorch_model"
_SAFE = (f"{_WEIGHTS}.safetensors", f"{_WEIGHTS}.safetensors.index.json", f"{_WEIGHTS}-*-of-*.safetensors")
_SPEC = "diffusers:FOLDER-or-Hub-id, then ?scaled, ?size=64 or both as ?scaled&size=64, then #subfolder"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a spec asks for."""

    place: str  # a folder or a Hub id, with or without @revision
    scaled: bool = False
    size: int | None = None  # side of the images; None: what the config says
    subfolder: str | None = None


def load_diffusers(rest: str) -> ModuleModel:
    """Return the autoencoder that `diffusers:rest` names.

    Its codes are raw, as `encode` of diffusers gives them, unless `?scaled` asks for those that a diffusion model sees:
    (code - shift) * factor, by the numbers in the config. Its weights are read from safetensors, in float32.

    Args:
        rest: a folder that diffusers wrote or a Hub id (with `@revision` where one is meant), and behind it `?scaled`, `?size=64` (the side of the images; the
            config's sample_size, or 64), `#subfolder`.

    Raises:
        SettingError: options that are none, a size that the model cannot serve, or `?scaled` where the config has no scale.
        MissingPathError: no such folder, and no Hub id.
        HubError: the Hub did not deliver it.
        ArtifactError: the folder holds something else, pickled weights only, or weights that do not fit.
        MissingExtraError: diffusers is not installed.
    """
    request = read_request(rest)
    folder = _folder(request)
    config = _config(folder, request)
    scale = scale_from_config(config)
    if request.scaled and scale is None:
        raise SettingError(
            f"The config of {rest} states no scaling_factor, shift_factor, latents_mean or latents_std. Leave ?scaled out; "
            "latlas diagnose measures the numbers that fit."
        )
    kind = getattr(_diffusers(), config["_class_name"], None)
    if kind is None:
        raise ArtifactError(
            f"The diffusers installed here has no {config['_class_name']}. Update it: pip install -U 'latlas[hub]'."
        )
    size = request.size if request.size is not None else _default_size(config)
    with _quiet():
        image_shape, latent_shape = _shapes(kind, config, size, folder=folder)
        module = _load(kind, folder)
    name = Path(request.place).resolve().name + (f"#{request.subfolder}" if request.subfolder else "")
    return ModuleModel(
        module,
        image_shape=image_shape,
        latent_shape=latent_shape,
        name=f"{name} ({config['_class_name']}, {'scaled' if request.scaled else 'raw'} latents)",
        value_range=(-1.0, 1.0),
        scale=scale,
        scaled=request.scaled,
        stride=-(-size // latent_shape[1]),
    )


def read_request(rest: str) -> Request:
    """Return what stands behind `diffusers:`.

    Raises:
        SettingError: it cannot be read.

    >>> read_request("models/vae?scaled&size=128#vae")
    Request(place='models/vae', scaled=True, size=128, subfolder='vae')
    """
    if rest and os.path.isdir(rest):  # noqa: PTH112  # whatever signs its name holds; a Path raises where none could have it
        return Request(place=rest)
    place, *parts = re.split(r"(?=[?#])", rest)
    asked: dict[str, Any] = {}
    for part in parts:
        options = [("subfolder", part[1:])] if part[0] == "#" else [_option(text, rest) for text in part[1:].split("&")]
        for option, value in options:
            if option in asked:
                raise SettingError(f"{rest!r} says {option} twice. Write {_SPEC}.")
            asked[option] = value
    if not place or asked.get("subfolder") == "":
        raise SettingError(f"{rest!r} names no {'subfolder' if place else 'place'}. Write {_SPEC}.")
    return Request(place=place, **asked)


def scale_from_config(config: Mapping[str, Any]) -> CodeScale | None:
    """Return the normalisation that a config of diffusers states, or None where it states none.

    With latents_mean and latents_std it is (code - mean) * scaling_factor / std, otherwise
    (code - shift_factor) * scaling_factor, as diffusers' own pipelines do (those of SDXL and of SD3).

    Raises:
        ArtifactError: numbers that cannot be read.
    """
    factor, shift, mean, std = (config.get(key) for key in ("scaling_factor", "shift_factor", "latents_mean", "latents_std"))
    if (factor, shift, mean, std) == (None, None, None, None):
        return None
    try:
        whole = 1.0 if factor is None else float(factor)
        factors = (whole,) if std is None else tuple(whole / float(value) for value in std)
        shifts = tuple(map(float, mean)) if mean is not None else (0.0 if shift is None else float(shift),)
        return CodeScale(factor=factors, shift=shifts)
    except (TypeError, ValueError, ZeroDivisionError, SettingError) as failure:
        raise ArtifactError(f"The config states a scale that cannot be used ({failure}). Correct its {CONFIG}.") from failure


def _option(text: str, rest: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if name == "scaled" and not equals:
        return name, True
    if name == "size" and value.isdecimal() and int(value) > 0:
        return name, int(value)
    raise SettingError(f"{rest!r} asks for {text!r}, which is no option. Write {_SPEC}.")


def _folder(request: Request) -> Path:
    """Return the local folder that holds config and weights, fetched from the Hub if it is not here."""
    folder = Path(request.place)
    if os.path.isdir(folder):  # noqa: PTH112  # a Path raises where no folder could have that name
        found = folder / request.subfolder if request.subfolder else folder
        if not os.path.isdir(found):  # noqa: PTH112
            raise MissingPathError(f"{folder} has no subfolder {request.subfolder}.")
        return found
    named = hub_id(request.place)
    if named is None or os.path.isdir(folder.parent):  # noqa: PTH112  # a slip in a folder's name stays on this machine
        raise MissingPathError(f"No folder {request.place}, and it is no Hub id, as owner/name. Write {_SPEC}.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as failure:
        raise MissingExtraError(
            f"There is no folder {request.place}, and fetching it from the Hub needs the package huggingface-hub, which is not "
            f"installed ({failure}). Install it: pip install 'latlas[hub]'."
        ) from failure
    within = f"{request.subfolder}/" if request.subfolder else ""
    wanted = [within + name for name in (CONFIG, *_SAFE)]
    try:
        return Path(snapshot_download(named.repository, revision=named.revision, allow_patterns=wanted)) / within
    except Exception as failure:  # what the Hub's client raises depends on its version and on the HTTP library below it
        raise HubError(
            f"There is no folder {request.place}, and the Hub did not deliver it ({_first_line(failure)}). Check the name and the "
            "connection, or give a folder."
        ) from failure


def _config(folder: Path, request: Request) -> Mapping[str, Any]:
    if not (folder / CONFIG).is_file():
        if (folder / "model_index.json").is_file():
            raise ArtifactError(f"{request.place} is a whole pipeline. Name the subfolder of its autoencoder, as in #vae.")
        raise ArtifactError(f"{request.place} holds no autoencoder of diffusers: it has no {CONFIG}.")
    config: Any = read_json(folder / CONFIG)
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise ArtifactError(f"{request.place} holds no autoencoder of diffusers: its {CONFIG} has no _class_name.")
    if kind not in CLASSES:
        raise ArtifactError(
            f"{request.place} holds a {kind}, which does not encode and decode images on its own. Served are {', '.join(CLASSES)}; for "
            "others wrap their methods with latlas.models.adapters.modules.from_module."
        )
    if any(isinstance(value, int) and abs(value) > _MOST_COUNTED for value in config.values()):
        raise ArtifactError(
            f"The {CONFIG} of {request.place} asks for more than {_MOST_COUNTED:,} of something. It is damaged."
        )
    if not any(any(folder.glob(name)) for name in _SAFE):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        cure = (
            f"{', '.join(pickled)} is pickled, which latlas never reads: load it with diffusers and save_pretrained it."
            if pickled
            else "Save the model again with save_pretrained of diffusers."
        )
        raise ArtifactError(f"{request.place} has no {_SAFE[0]}. {cure}")
    return config


def _default_size(config: Mapping[str, Any]) -> int:
    size = config.get("sample_size")
    if isinstance(size, list | tuple) and size:
        size = size[0]
    return size if isinstance(size, int) and size > 0 else _SIDE


def _shapes(kind: Any, config: Mapping[str, Any], size: int, *, folder: Path) -> tuple[ImageShape, LatentShape]:
    """Return the shapes of images and codes, found by running a model without memory: nothing is computed."""
    channels = config.get("in_channels", 3)
    image_shape: ImageShape = (channels, size, size)
    try:
        with bounded_parameters(_MOST_PARAMETERS), torch.device("meta"):
            hollow = kind.from_config(dict(config)).eval()
            codes = read_posterior(hollow.encode(torch.zeros(1, *image_shape)), name=folder.name).mean
            images = read_images(hollow.decode(codes), name=folder.name)
    except Exception as failure:  # of other people's code, on settings from a file
        raise SettingError(
            f"{config['_class_name']} in {folder.name} cannot serve images of {channels}x{size}x{size} ({_first_line(failure)}). Ask for another "
            "size, as in ?size=64; if none will do, its config is damaged."
        ) from failure
    latent_shape = tuple(int(side) for side in codes.shape[1:])
    if tuple(images.shape[1:]) != image_shape:
        raise SettingError(
            f"{config['_class_name']} in {folder.name} makes {'x'.join(map(str, images.shape[1:]))} of images of "
            f"{'x'.join(map(str, image_shape))}. Ask for a size that is a multiple of its stride, as in ?size={int(images.shape[-1])}."
        )
    return image_shape, latent_shape


def _load(kind: Any, folder: Path) -> nn.Module:
    try:
        module, report = kind.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, torch_dtype=torch.float32, output_loading_info=True
        )
    except Exception as failure:  # what diffusers raises for a damaged folder differs from version to version
        raise ArtifactError(
            f"The weights in {folder.name} cannot be read ({_first_line(failure)}). Save or fetch the model again."
        ) from failure
    # diffusers leaves what it does not find at random values.
    absent = [*report.get("missing_keys", ()), *(str(key) for key in report.get("mismatched_keys", ()))]
    if absent:
        raise ArtifactError(
            f"The weights in {folder.name} do not fit its {CONFIG}: {len(absent)} are missing or of another shape, the first is "
            f"{absent[0]}. Save or fetch the model again."
        )
    return module


def _first_line(failure: Exception) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0].rstrip(".")


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as failure:
        raise MissingExtraError(
            f"diffusers:… needs the package diffusers, which is not installed ({failure}). Install it: pip install 'latlas[hub]'."
        ) from failure
    return diffusers


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep diffusers from warning of settings that its own `save_pretrained` writes."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
