"""`stylegan2:FILE.pkl#w`: a StyleGAN2 from a network pickle or a folder of latlas, in one of its named latent spaces."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latlas.base.errors import (
    ArtifactError,
    CapabilityError,
    ImageFormatError,
    MissingPathError,
    SettingError,
    UnknownNameError,
    unknown_name,
)
from latlas.base.provenance import Provenance, file_hash, tensor_hash
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape
from latlas.models.adapters.stylegan_networks import StoredNetwork, printable, read_network_file
from latlas.models.architectures.stylegan2 import SPACES, StyleGAN2, StyleGAN2Generator, clip
from latlas.models.generator import GeneratorModel
from latlas.models.protocols import check_codes

_SPEC = "stylegan2:FILE.pkl or :FOLDER, then ?psi=0.7&cutoff=8&class=3&noise=none (any of them), then #z, #w or #w+"
_LARGEST, _MOST_LAYERS = 2**20, 100  # that a file may ask for
_POSITIONS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")  # of the constructor's arguments
_NOISES = ("const", "none")  # of a decoder: one that draws its own noise would give two images of one code


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a spec asks for."""

    place: str  # a file or a folder
    space: str = "z"
    truncation: float = 1.0
    cutoff: int | None = None  # layers that are truncated, the first ones; None: all
    label: int | None = None
    noise: str = "const"


class StyleGANModel(nn.Module):
    """A StyleGAN2 as the decoder of one of its latent spaces.

    Codes of z are `n latent`, of w `n style`; those of w+ are vectors too, `n num_ws * style`, layer after layer, so that
    whatever takes vectors takes them. Truncation belongs to the way from z to w: it acts on images of z, and on the codes
    that are drawn in w and w+; a given code of w or w+ is drawn as it is.

    Args:
        network: the generator; shared, not copied.
        image_shape: channels, height, width.
        space: "z", "w" or "w+".
        truncation: 1 leaves styles as they are, 0 gives the mean style.
        cutoff: how many layers are truncated, the first ones; None: all.
        label: the class that is drawn; None: all at random, which only w and w+ can.
        noise: "const" or "none".
        name: what reports call it.
        provenance: what it was made from.

    Raises:
        UnknownNameError: no such space or noise.
        SettingError: a setting out of range.
        CapabilityError: a class of a network without any, or none where z needs one.
    """

    def __init__(
        self,
        network: StyleGAN2Generator,
        image_shape: ImageShape,
        *,
        space: str = "z",
        truncation: float = 1.0,
        cutoff: int | None = None,
        label: int | None = None,
        noise: str = "const",
        name: str = "StyleGAN2",
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        if space not in SPACES:
            raise unknown_name("latent space", space, SPACES)
        if noise not in _NOISES:
            raise unknown_name("noise", noise, _NOISES)
        if not -2 <= truncation <= 2:
            raise SettingError(f"The truncation psi should lie between 0 and 1, got {truncation}.")
        if cutoff is not None and not 0 <= cutoff <= network.num_ws:
            raise SettingError(f"The cutoff must lie between 0 and the {network.num_ws} layers of {name}, got {cutoff}.")
        if cutoff is not None and space == "w":
            raise SettingError("A code of w is the style of all layers: a cutoff needs z or w+.")
        _check_label(name, network.classes, label, space)
        self.network = network
        self.image_shape: ImageShape = image_shape
        self.space, self.truncation, self.cutoff, self.label, self.noise = space, truncation, cutoff, label, noise
        self.base_name, self.name = name, f"{name} {space}"
        self.provenance = provenance
        style = network.mapping.style
        sizes = {"z": network.mapping.latent, "w": style, "w+": network.num_ws * style}
        self.latent_shape: LatentShape = (sizes[space],)
        self.eval()

    def in_space(self, space: str) -> "StyleGANModel":
        """Return the same generator as the decoder of another of its latent spaces."""
        return StyleGANModel(
            self.network,
            self.image_shape,
            space=space,
            truncation=self.truncation,
            cutoff=self.cutoff,
            label=self.label,
            noise=self.noise,
            name=self.base_name,
            provenance=self.provenance,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights and of how they are used."""
        weights = tensor_hash(*self.network.state_dict().values())
        settings = f"{weights}/{self.space}/{self.truncation}/{self.cutoff}/{self.label}/{self.noise}"
        return hashlib.sha256(settings.encode()).hexdigest()

    @property
    def mean_code(self) -> Tensor:
        """The code of the mean style, from which a descent in w or w+ may start; of z the mean, 0, which has no such meaning."""
        mean = self.network.mapping.w_avg
        if self.space == "z":
            return torch.zeros_like(mean[:1]).expand(self.latent_shape)
        return mean.clone() if self.space == "w" else mean.repeat(self.network.num_ws)

    def decode(self, codes: Codes) -> Images:
        """Return the image of each code, in [0, 1]; what the network draws beyond is clipped.

        Raises:
            CodeShapeError: codes of another latent space.
        """
        check_codes(codes, self)
        return clip(self.network.draw(self.layers(codes), self.noise))

    def layers(self, codes: Codes) -> Tensor:
        """Return the style of each layer, `n num_ws style`."""
        if self.space == "z":
            return self._truncated(self.network.styles(codes, self._labels(len(codes), codes)))
        if self.space == "w":
            return self.network.spread(codes)
        return codes.reshape(len(codes), self.network.num_ws, self.network.mapping.style)

    @torch.no_grad()
    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return codes as the generator draws them: of z from a normal; of w and w+ by the mapping, one style for all layers."""
        mapping = self.network.mapping
        codes = torch.randn(n, mapping.latent, generator=generator)
        if self.space == "z":
            return codes
        labels = self._labels(n, codes)
        if labels is None and mapping.classes:
            drawn = torch.randint(mapping.classes, (n,), generator=generator)
            labels = nn.functional.one_hot(drawn, mapping.classes)
        place = mapping.w_avg.device
        styles = self.network.styles(codes.to(place), None if labels is None else labels.to(place))
        if self.space == "w":
            return self.network.mapping.truncate(styles, self.truncation).cpu()
        return self._truncated(styles).flatten(1).cpu()

    def _truncated(self, styles: Tensor) -> Tensor:
        layers = self.network.spread(styles)
        if self.cutoff is None:
            return self.network.mapping.truncate(layers, self.truncation)
        near = self.network.mapping.truncate(layers[:, : self.cutoff], self.truncation)
        return torch.cat([near, layers[:, self.cutoff :]], dim=1)

    def _labels(self, count: int, like: Tensor) -> Tensor | None:
        if self.label is None:
            return None
        return nn.functional.one_hot(torch.tensor(self.label), self.network.classes).to(like).expand(count, -1)


def load_stylegan2(rest: str) -> StyleGANModel:
    """Return the generator that `stylegan2:rest` names.

    Args:
        rest: a `.pkl` in the format of StyleGAN2-ADA (PyTorch), read without running anything of it, or a folder that latlas
            wrote; then settings and the latent space, as `network.pkl?psi=0.7#w`.

    Raises:
        MissingPathError: no such file or folder.
        UnsafePickleError: the file names what no network file needs.
        ArtifactError: it holds something else, or is damaged.
        CapabilityError: a network whose synthesis is not implemented, as that of StyleGAN3.
        SettingError, UnknownNameError: a setting that does not exist or is out of range.
    """
    request = parse_request(rest)
    place = Path(request.place)
    if os.path.isdir(place):  # noqa: PTH112  # a Path raises where no folder could have that name
        generator = GeneratorModel.from_pretrained(place)
    elif os.path.isfile(place):  # noqa: PTH113
        generator = read_generator(place)
    else:
        raise MissingPathError(f"No file or folder {request.place!r}. Expected {_SPEC}.")
    network = generator.network
    if not isinstance(network, StyleGAN2Generator):
        raise ArtifactError(f"{place} is a {generator.architecture.name}, which has no w. Give the folder itself as the model.")
    return StyleGANModel(
        network,
        generator.image_shape,
        space=request.space,
        truncation=request.truncation,
        cutoff=request.cutoff,
        label=request.label,
        noise=request.noise,
        name=generator.name,
        provenance=generator.provenance,
    )


def read_generator(path: str | Path, *, network: str = "G_ema") -> GeneratorModel:
    """Return a generator of a network pickle as a model that can be saved as an artifact: its weights, none of its code.

    Args:
        path: of the `.pkl`.
        network: which one: "G_ema", whose weights are averaged, or "G".

    Raises:
        MissingPathError: no such file.
        UnsafePickleError: the file names what no network file needs.
        ArtifactError: it holds something else, or is damaged.
        CapabilityError: a network whose synthesis is not implemented, as that of StyleGAN3.
    """
    stored = read_network_file(path).network(network)
    settings, image_shape = settings_of(stored, name=str(path))
    provenance = Provenance(
        made_by="read_generator", made_from={"file": file_hash(Path(path))}, settings={"network": network, **stored.settings}
    )
    with torch.device("meta"):  # hollow: arguments that lie about sizes cost no memory
        try:
            model = GeneratorModel(settings, image_shape, name=Path(path).stem, provenance=provenance)
        except (ImageFormatError, SettingError) as failure:
            raise ArtifactError(f"The arguments in {path} make no StyleGAN2 ({failure}). Fetch the file again.") from failure
    try:
        model.network.load_state_dict({name: tensor.float() for name, tensor in stored.weights.items()}, assign=True)
    except RuntimeError as failure:
        lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
        raise ArtifactError(
            f"The weights in {path} do not fit the arguments it gives ({' '.join(lines[1:3])[:300]}). Fetch the file again."
        ) from failure
    return model


def settings_of(stored: StoredNetwork, *, name: str) -> tuple[StyleGAN2, ImageShape]:
    """Return the architecture that a stored network describes, and the shape of its images.

    Raises:
        CapabilityError: it is no StyleGAN2 generator, or has an activation that is not implemented.
        ArtifactError: its arguments are incomplete or make no sense.
    """
    if stored.family == "stylegan3":
        raise CapabilityError(
            f"{name} holds a StyleGAN3, whose synthesis is not implemented. Its weights and arguments can be read with "
            "latlas.models.adapters.stylegan_networks.read_network_file."
        )
    if stored.family != "stylegan2":
        raise CapabilityError(f"{name} holds a {stored.class_name}, which is no generator of StyleGAN2.")
    given = dict(zip(_POSITIONS, stored.arguments, strict=False)) | stored.settings
    mapping = given.get("mapping_kwargs") or {}
    beside = {key: value for key, value in given.items() if key not in (*_POSITIONS, "mapping_kwargs", "synthesis_kwargs")}
    synthesis = given.get("synthesis_kwargs") or {}
    if not isinstance(mapping, dict) or not isinstance(synthesis, dict):
        raise ArtifactError(f"The arguments in {name} make no StyleGAN2. Fetch the file again.")
    synthesis = beside | synthesis  # StyleGAN3's copy of StyleGAN2 takes them beside the others
    kept = stored.attributes

    def drawn(key: str, default: Any) -> Any:
        """A setting as a layer keeps it, where it does: the two programs have different defaults."""
        return kept.get(f"synthesis.b4.conv1.{key}", synthesis.get(key, default))

    for activation in (drawn("activation", "lrelu"), mapping.get("activation", "lrelu")):
        if activation != "lrelu":
            raise CapabilityError(f"{name} has the activation {printable(activation)}; only lrelu is implemented.")
    sizes = {
        "img_resolution": given.get("img_resolution"),
        "img_channels": given.get("img_channels"),
        "z_dim": given.get("z_dim"),
        "w_dim": given.get("w_dim"),
        "c_dim": given.get("c_dim", 0),
        "num_layers": mapping.get("num_layers", kept.get("mapping.num_layers", 8)),
        "layer_features": mapping.get("layer_features"),
        "embed_features": mapping.get("embed_features"),
        "channel_base": synthesis.get("channel_base", 32768),
        "channel_max": synthesis.get("channel_max", 512),
    }
    for key, size in sizes.items():
        smallest, largest = int(key != "c_dim"), _MOST_LAYERS if key == "num_layers" else _LARGEST
        absent = size is None and key in ("layer_features", "embed_features")
        if not absent and (type(size) is not int or not smallest <= size <= largest):
            raise ArtifactError(
                f"{name} makes no StyleGAN2: its {key} is {size if type(size) is int else printable(size)}. Fetch the file again."
            )
    rest = {
        "mapping_rate": mapping.get("lr_multiplier", 0.01),
        "structure": kept.get("synthesis.b4.architecture", synthesis.get("architecture", "skip")),
        "taps": synthesis.get("resample_filter") or [1, 3, 3, 1],
        "noisy": drawn("use_noise", True),
        "clamp": drawn("conv_clamp", None),
    }
    try:
        settings = StyleGAN2(
            latent=sizes["z_dim"],
            style=sizes["w_dim"],
            classes=sizes["c_dim"],
            layers=sizes["num_layers"],
            width=sizes["layer_features"],
            embedding=sizes["embed_features"],
            mapping_rate=float(rest["mapping_rate"]),
            channel_base=sizes["channel_base"],
            channel_max=sizes["channel_max"],
            structure=str(rest["structure"]),
            taps=tuple(float(tap) for tap in rest["taps"]),
            noisy=bool(rest["noisy"]),
            clamp=None if rest["clamp"] is None else float(rest["clamp"]),
        )
    except (TypeError, ValueError, SettingError, UnknownNameError) as failure:
        raise ArtifactError(f"The arguments in {name} make no StyleGAN2 ({failure}). Fetch the file again.") from failure
    return settings, (sizes["img_channels"], sizes["img_resolution"], sizes["img_resolution"])


def parse_request(rest: str) -> Request:
    """Return what a spec asks for.

    Raises:
        SettingError: it cannot be read.

    >>> parse_request("ffhq.pkl?psi=0.7#w+")
    Request(place='ffhq.pkl', space='w+', truncation=0.7, cutoff=None, label=None, noise='const')
    """
    before, _, space = rest.partition("#")
    place, _, query = before.partition("?")
    wanted: dict[str, Any] = {}
    readers = {"psi": ("truncation", float), "cutoff": ("cutoff", int), "class": ("label", int), "noise": ("noise", str)}
    for piece in re.split("[&,]", query) if query else []:
        key, _, value = piece.partition("=")
        if key not in readers:
            raise SettingError(f"Unknown setting {key!r} in stylegan2:{rest}. Expected {_SPEC}.")
        setting, read = readers[key]
        try:
            wanted[setting] = read(value)
        except ValueError:
            raise SettingError(f"{key} must be a number, got {value!r} in stylegan2:{rest}.") from None
    return Request(place=place, space=space or "z", **wanted)


def _check_label(name: str, classes: int, label: int | None, space: str) -> None:
    if label is not None and not classes:
        raise CapabilityError(f"{name} has no classes. Leave out ?class={label}.")
    if label is not None and not 0 <= label < classes:
        raise SettingError(f"{name} has the classes 0 to {classes - 1}, got {label}.")
    if label is None and classes and space == "z":
        raise CapabilityError(f"{name} draws {classes} classes of images: say which one, as in ?class=0, or use #w.")
