"""`pythae:FOLDER`: models that pythae 0.1 wrote, rebuilt here: neither pythae nor any pickled code is needed or run."""

import os
import pickletools
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latlas.base.artifacts import read_json
from latlas.base.errors import ArtifactError, CapabilityError, MissingPathError
from latlas.base.shapes import ImageShape
from latlas.models.adapters.modules import ModuleModel

CONFIG = "model_config.json"
WEIGHTS = "model.pt"

_MOST_OF_FILE = 4  # tensors may be so many times the file: they share storages, but hardly ever
_HIDDEN = 512  # width of the dense networks that pythae builds where it is given none

# Configs of models whose codes are what the encoder gives and the decoder takes, and whether they come with variances.
_VARIATIONAL = {
    "VAEConfig", "BetaVAEConfig", "BetaTCVAEConfig", "DisentangledBetaVAEConfig", "FactorVAEConfig", "IWAEConfig", "CIWAEConfig",
    "MIWAEConfig", "PIWAEConfig", "INFOVAE_MMD_Config", "MSSSIM_VAEConfig", "VAMPConfig", "VAEGANConfig", "Adversarial_AE_Config",
}  # fmt: skip
_DETERMINISTIC = {"AEConfig", "WAE_MMD_Config", "RAE_L2_Config", "RAE_GP_Config"}
_NO_STANDARD_NORMAL = {"AEConfig", "RAE_L2_Config", "RAE_GP_Config", "VAMPConfig"}  # the prior is unknown, or learned

_BENCHMARKS = "pythae.models.nn.benchmarks."
_HEAD = 40  # steps of a pickle within which the class of what it holds is named, and the module of the class
_WRAPPING = {"cloudpickle.cloudpickle", "_make_skeleton_class", "builtins", "type"}
_CURE = (
    "Load it with pythae and wrap it: latlas.models.adapters.modules.from_module(model, encode='encoder', decode='decoder', ...), or "
    "a CallableModel of two functions."
)


@dataclass(frozen=True)
class _Up:
    """One transposed convolution of a decoder, with what follows it."""

    channels: int
    padding: int
    output_padding: int = 0
    stride: int = 2


@dataclass(frozen=True)
class _Convolutional:
    """A pair of pythae's own convolutional networks: four halvings, and a decoder from `seed` positions a side."""

    image_shape: ImageShape
    positions: int  # of the last feature map of the encoder
    seed: int
    kernel: int
    up: tuple[_Up, ...]
    wrapped: bool  # whether the decoder's first layer stands in a sequence of one, which changes its name


_MNIST = _Convolutional((1, 28, 28), 1, 4, 3, (_Up(512, 1), _Up(256, 1, 1), _Up(1, 1, 1)), False)
_CELEBA = _Convolutional((3, 64, 64), 16, 8, 5, (_Up(512, 2), _Up(256, 1), _Up(128, 2, 1), _Up(3, 1, 0, 1)), True)
_WIDTHS = (128, 256, 512, 1024)

# Class name -> structure, and of encoders whether they give variances.
_ENCODERS = {
    "Encoder_Conv_AE_MNIST": (_MNIST, False),
    "Encoder_Conv_VAE_MNIST": (_MNIST, True),
    "Encoder_Conv_AE_CELEBA": (_CELEBA, False),
    "Encoder_Conv_VAE_CELEBA": (_CELEBA, True),
}
_DECODERS = {"Decoder_Conv_AE_MNIST": _MNIST, "Decoder_Conv_AE_CELEBA": _CELEBA}


class PythaeEncoder(nn.Module):
    """Images in [0, 1] to means, or to means and log-variances; its weights bear pythae's names."""

    def __init__(
        self, image_shape: ImageShape, latent: int, *, variances: bool, structure: _Convolutional | None = None
    ) -> None:
        super().__init__()
        self.dense = structure is None
        if structure is None:
            width = _HIDDEN
            blocks = [nn.Sequential(nn.Linear(prod(image_shape), width), nn.ReLU())]
        else:
            width = _WIDTHS[-1] * structure.positions
            blocks = [
                nn.Sequential(nn.Conv2d(before, after, 4, 2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
                for before, after in zip((image_shape[0], *_WIDTHS), _WIDTHS, strict=False)
            ]
        self.layers = nn.ModuleList(blocks)
        self.embedding = nn.Linear(width, latent)
        self.log_var = nn.Linear(width, latent) if variances else None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return means, or a pair."""
        features = images.flatten(1) if self.dense else images
        for layer in self.layers:
            features = layer(features)
        features = features.flatten(1)
        mean = self.embedding(features)
        return mean if self.log_var is None else (mean, self.log_var(features))


class PythaeDecoder(nn.Module):
    """Codes to images in [0, 1]; its weights bear pythae's names."""

    def __init__(self, image_shape: ImageShape, latent: int, *, structure: _Convolutional | None = None) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.seed: tuple[int, ...] | None = None
        if structure is None:
            blocks: list[nn.Module] = [
                nn.Sequential(nn.Linear(latent, _HIDDEN), nn.ReLU()),
                nn.Sequential(nn.Linear(_HIDDEN, prod(image_shape)), nn.Sigmoid()),
            ]
        else:
            self.seed = (_WIDTHS[-1], structure.seed, structure.seed)
            first = nn.Linear(latent, prod(self.seed))
            blocks = [nn.Sequential(first) if structure.wrapped else first]
            before = _WIDTHS[-1]
            for step in structure.up:
                layer = nn.ConvTranspose2d(
                    before,
                    step.channels,
                    structure.kernel,
                    step.stride,
                    padding=step.padding,
                    output_padding=step.output_padding,
                )
                last = step is structure.up[-1]
                tail = [nn.Sigmoid()] if last else [nn.BatchNorm2d(step.channels), nn.ReLU()]
                blocks.append(nn.Sequential(layer, *tail))
                before = step.channels
        self.layers = nn.ModuleList(blocks)

    def forward(self, codes: Tensor) -> Tensor:
        """Return images."""
        features = self.layers[0](codes)
        if self.seed is not None:
            features = features.unflatten(1, self.seed)
        for layer in list(self.layers)[1:]:
            features = layer(features)
        return features.reshape(len(codes), *self.image_shape)


class PythaeNetwork(nn.Module):
    """An encoder and a decoder by the names that pythae's weights have."""

    def __init__(self, encoder: PythaeEncoder, decoder: PythaeDecoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return means, or means and log-variances."""
        return self.encoder(images)

    def decode(self, codes: Tensor) -> Tensor:
        """Return images."""
        return self.decoder(codes)


def load_pythae(rest: str) -> ModuleModel:
    """Return the model in a folder that pythae wrote.

    Served are all autoencoders of pythae whose codes are what the encoder gives and the decoder takes, with its default
    networks or its convolutional ones for MNIST and CelebA. What else a model has (discriminators, pseudo-inputs) is left.

    Args:
        rest: the folder with `model_config.json` and `model.pt`.

    Raises:
        MissingPathError: no such folder.
        ArtifactError: it holds something else, or is damaged.
        CapabilityError: a model, or a network of the user's own, that cannot be rebuilt; the message names it.
    """
    folder = Path(rest)
    if not rest or not os.path.isdir(folder):  # noqa: PTH112  # a Path raises where no folder could have that name
        raise MissingPathError(f"No folder {rest!r}: expected one that pythae wrote, as pythae:my_model/final_model.")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ArtifactError(f"{rest} is no model of pythae: it has no {name}. Training writes one into final_model.")
    config: Any = read_json(folder / CONFIG)
    kind = config.get("name") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise ArtifactError(f"{rest} is no model of pythae: its {CONFIG} has no name.")
    if kind not in _VARIATIONAL | _DETERMINISTIC:
        served = ", ".join(sorted(map(_title, _VARIATIONAL | _DETERMINISTIC)))
        raise CapabilityError(
            f"{rest} is a {_title(kind)} of pythae, whose codes are not simply what its encoder gives. Served are {served}. {_CURE}"
        )
    try:
        with torch.device("meta"):  # hollow: a config that lies about sizes costs no memory
            network, image_shape, latent = _build(folder, config, variances=kind in _VARIATIONAL)
    except (TypeError, RuntimeError, OverflowError) as failure:
        raise ArtifactError(
            f"{folder / CONFIG} has sizes that make no network ({str(failure)[:200]}). Save the model again."
        ) from failure
    _fill(network, folder)
    return ModuleModel(
        network,
        image_shape=image_shape,
        latent_shape=(latent,),
        name=f"{folder.resolve().name} (pythae {_title(kind)})",
        standard_normal=kind not in _NO_STANDARD_NORMAL,
    )


def _title(kind: str) -> str:
    return kind.removesuffix("Config").removesuffix("_")


def _build(folder: Path, config: Mapping[str, Any], *, variances: bool) -> tuple[PythaeNetwork, ImageShape, int]:
    encoding = _structure(folder, config, "encoder")
    decoding = _structure(folder, config, "decoder")
    structure, given = (None, variances) if encoding is None else _ENCODERS[encoding]
    drawing = None if decoding is None else _DECODERS[decoding]
    if given != variances:
        raise CapabilityError(
            f"{folder} is a {_title(config['name'])}, and its encoder {encoding} gives {'no variances' if variances else 'variances'}: "
            f"that cannot be rebuilt. {_CURE}"
        )
    latent: Any = config.get("latent_dim")
    shape: Any = config.get("input_dim")
    fixed = next((part.image_shape for part in (structure, drawing) if part is not None), None)
    if shape is None and fixed is not None:
        shape = list(fixed)
    if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in (latent, *shape)):
        raise ArtifactError(f"{folder / CONFIG} has latent_dim {latent!r} and input_dim {shape!r}, where sizes were expected.")
    if len(shape) != 3:
        raise CapabilityError(
            f"{folder} is a model of data of shape {'x'.join(map(str, shape))}; latlas takes images, of channels x height x width. {_CURE}"
        )
    image_shape: ImageShape = (shape[0], shape[1], shape[2])
    if fixed is not None and image_shape != fixed:
        raise ArtifactError(
            f"{folder / CONFIG} has input_dim {shape}, and its networks take {list(fixed)}. Write that into the config."
        )
    encoder = PythaeEncoder(image_shape, latent, variances=variances, structure=structure)
    return PythaeNetwork(encoder, PythaeDecoder(image_shape, latent, structure=drawing)), image_shape, latent


def _structure(folder: Path, config: Mapping[str, Any], part: str) -> str | None:
    """Return the class of pythae's own networks that a part is, or None for the default one.

    Raises:
        CapabilityError: it is a network of the user's own.
    """
    if config.get(f"uses_default_{part}", True):
        return None
    path = folder / f"{part}.pkl"
    if not path.is_file():
        raise ArtifactError(f"{folder} has no {path.name}, which its {CONFIG} announces. Copy the whole folder.")
    name = _class_in(path)
    known = _ENCODERS if part == "encoder" else _DECODERS
    if name not in known:
        raise CapabilityError(
            f"{folder} has {'an' if part == 'encoder' else 'a'} {part} of its own, {name or 'of an unknown class'}, in {path.name}. latlas runs "
            f"no pickled code; it rebuilds pythae's default networks and {', '.join(known)}. {_CURE}"
        )
    return name


def _class_in(path: Path) -> str | None:
    """Return the name of the class that a pickle holds an instance of. It is read, not unpickled: nothing in it runs."""
    strings: list[str] = []
    with path.open("rb") as stream, suppress(ValueError):  # what is no pickle names no class
        strings += (argument for _, argument, _ in islice(pickletools.genops(stream), _HEAD) if isinstance(argument, str))
    name = next((text for text in strings if text not in _WRAPPING and "." not in text), None)
    if name in {*_ENCODERS, *_DECODERS} and not any(text.startswith(_BENCHMARKS) for text in strings):
        return f"{name} of another module"  # a user's class of the same name may compute something else
    return name


def _check_stored(path: Path) -> None:
    """Raise a ValueError for an archive whose members are compressed, as torch never writes them: they may expand to anything."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("its members are compressed")


def _fill(network: PythaeNetwork, folder: Path) -> None:
    path = folder / WEIGHTS
    size = path.stat().st_size
    try:
        _check_stored(path)
        record: Any = torch.load(path, map_location="cpu", weights_only=True)
        parts = ("encoder.", "decoder.")
        weights = {name: value for name, value in record["model_state_dict"].items() if name.startswith(parts)}
        if sum(value.numel() * value.itemsize for value in weights.values()) > _MOST_OF_FILE * size:
            raise ValueError("its tensors name the same numbers over and over")
        whole = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
        network.load_state_dict(whole, assign=True)
    except Exception as failure:  # what a broken file raises is torch's affair, and differs from version to version
        lines = [line.strip() for line in str(failure).splitlines() if line.strip()] or [type(failure).__name__]
        reason = " ".join(lines[:2])
        raise ArtifactError(
            f"{path} does not hold the weights that {CONFIG} describes ({reason[:300]}). Save the model again."
        ) from failure
