"""From a MODEL spec to a model: the one place that knows every way to name one."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from os import PathLike
from pathlib import Path
from typing import Any

from latlas.base.artifacts import CONFIG, read_json
from latlas.base.errors import ArtifactError, MissingExtraError, MissingPathError, SettingError, unknown_name
from latlas.base.hub import hub_id, resolve
from latlas.models.carried_folders import SCHEME, artifact_folder, meant_name
from latlas.models.generator import KIND as GENERATOR_KIND
from latlas.models.generator import GeneratorModel
from latlas.models.given import described
from latlas.models.protocols import LatentModel, require_generator
from latlas.models.recoder import KIND as RECODER_KIND
from latlas.models.recoder import Recoder, with_recoder
from latlas.models.relocated import KIND as RELOCATED_KIND
from latlas.models.relocated import read_relocated
from latlas.models.vae import KIND as VAE_KIND
from latlas.models.vae import VAE

ENTRY_POINTS = "latlas.models"  # third parties register `scheme = "package.module:load"` under this group

# The schemes that come with latlas, in the form that third parties register theirs: imported when they are asked for.
SCHEMES = {
    name: EntryPoint(name, value, ENTRY_POINTS)
    for name, value in {
        "diffusers": "latlas.models.adapters.diffusers:load_diffusers",
        "stylegan2": "latlas.models.adapters.stylegan2:load_stylegan2",
        "pythae": "latlas.models.adapters.pythae:load_pythae",
        "zoo": "latlas.models.zoo:load_from_zoo",
    }.items()
}

_KINDS: dict[str, Callable[[Path], LatentModel]] = {
    VAE_KIND: VAE.from_pretrained,
    RELOCATED_KIND: lambda path: read_relocated(path, load_model),
    GENERATOR_KIND: GeneratorModel.from_pretrained,
    RECODER_KIND: Recoder.from_pretrained,
}

_WEIGHTS_ALONE = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")  # files of weights, as other programs write them

# What a file in a folder of another program tells of the scheme that reads it.
_FOREIGN = {"model_index.json": "diffusers", "model_config.json": "pythae"}


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no name that a file could have
        return False


def _pair_of(text: str) -> tuple[str, str] | None:
    """Return generator and recoder of a spec that names both; None of any other.

    What follows the sign must be a folder, or else of the zoo or a Hub id: file names may hold a +, and `stylegan2:FILE#w+` ends in
    one.
    """
    cuts = [place for place, sign in enumerate(text) if sign == "+" and 0 < place < len(text) - 1]
    pairs = [(text[:cut], text[cut + 1 :]) for cut in reversed(cuts)]
    found = [pair for pair in pairs if _is_folder(pair[1])]
    found += [pair for pair in pairs if pair[1].startswith(SCHEME) or hub_id(pair[1]) is not None]
    found += [pair for pair in pairs if _is_folder(pair[0])]  # then it is the recoder that is missing, and that is told
    return next(iter(found), None)


def _is_folder(name: str) -> bool:
    path = Path(name)
    return _exists(path) and path.is_dir()


def _cure(text: str) -> str:
    """Return what to do about a model that is not there."""
    from latlas.models.zoo import ZOO

    meant = meant_name(text, ZOO)
    if meant is not None:
        return f"Did you mean {meant}? Those of the zoo are listed by `latlas zoo`."
    return f"Train one with `latlas train dense mnist --out {text}`."


def _way_from_file(path: Path) -> str:
    """Return what to do with a file that was given for a model."""
    if path.suffix in _WEIGHTS_ALONE:
        return (
            "Weights alone are no model: build the network in Python, load them into it, and wrap it with latlas.from_module."
        )
    if path.suffix == ".pkl":
        return f"Of a StyleGAN2 it is stylegan2:{path}."
    return f"Give the folder, or scheme:{path} for a file of another program."


def _loader(point: EntryPoint) -> Callable[[str], LatentModel]:
    try:
        found: Callable[[str], LatentModel] = point.load()
    except (ImportError, AttributeError) as failure:
        raise MissingExtraError(
            f"The scheme {point.name} is registered as {point.value}, which cannot be imported ({failure}). Install that package again."
        ) from failure
    return found


def load_model(spec: str | Path) -> LatentModel:
    """Return the model that a spec names.

    Args:
        spec: a folder that latlas wrote, or its Hub id; or `scheme:rest` for a scheme of `SCHEMES` or one that an installed
            package registers under the entry point group `latlas.models`; its function gets `rest` and returns a model. Or
            `GENERATOR+RECODER`, as "runs/gan+runs/codes" or "zoo:dcgan-faces+runs/face-codes": a generator, named in any of
            these ways, that encodes through its recoder, which is a folder, a Hub id or of the zoo. A path that exists is a
            path, whatever signs it holds.

    Raises:
        MissingPathError: no such folder.
        UnknownNameError: no such scheme, or no such name in the zoo.
        ArtifactError: the folder holds something else, or is damaged.
        MissingExtraError: the scheme needs a package that is not installed.
        HubError: a Hub id, and the Hub could not be reached.
        CapabilityError: a recoder for another generator, or beside what is no generator.
        SettingError: something that is no spec.

    >>> load_model("zoo:digits-dense").image_shape
    (1, 28, 28)
    """
    if not isinstance(spec, str | PathLike):
        raise SettingError(
            f"A model is named by a folder, a Hub id or scheme:rest, as 'zoo:digits-dense'; got {described(spec)}. A network of your own is "
            "wrapped by latlas.from_module, and what is a model already needs no loading."
        )
    text = str(spec)
    path = Path(text)
    scheme, colon, rest = text.partition(":")
    is_path = isinstance(spec, Path) or _exists(path) or (colon and _exists(Path(rest)))
    pair = None if is_path else _pair_of(text)
    if pair is not None:
        generator, recoder = pair
        place = artifact_folder(recoder, (RECODER_KIND,), called="recoder")
        return with_recoder(require_generator(load_model(generator), "A recoder"), Recoder.from_pretrained(place))
    if colon and not _exists(path):
        schemes = {point.name: point for point in entry_points(group=ENTRY_POINTS)} | SCHEMES
        if scheme not in schemes:
            raise unknown_name("model scheme", scheme, schemes, hint="Or give a folder that `latlas train` wrote.")
        load: Callable[[str], LatentModel] = _loader(schemes[scheme])
        return load(rest)
    path = resolve(spec)
    if _exists(path) and path.is_file():
        raise ArtifactError(f"{text} is a file, and a model is a folder. {_way_from_file(path)}")
    if not _exists(path) or not path.is_dir():
        raise MissingPathError(f"No model folder {text}. {_cure(text)}")
    foreign = next((scheme for name, scheme in _FOREIGN.items() if (path / name).is_file()), None)
    if not (path / CONFIG).is_file():
        cure = "" if foreign is None else f" {foreign} wrote it: ask for {foreign}:{text}."
        raise ArtifactError(f"{text} is not a latlas model: it has no {CONFIG}.{cure}")
    record: Any = read_json(path / CONFIG)
    if isinstance(record, dict) and "_class_name" in record:
        raise ArtifactError(f"{text} is not a latlas model: diffusers wrote it. Ask for diffusers:{text}.")
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        found = f"a latlas {kind}" if isinstance(kind, str) else "written by another program"
        raise ArtifactError(f"{text} is not a model: it is {found}. Models are of kind {', '.join(sorted(_KINDS))}.")
    return _KINDS[kind](path)
