"""From a MODEL spec to a model: the one place that knows every way to name one."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from latlas.base.artifacts import CONFIG, read_json
from latlas.base.errors import ArtifactError, MissingPathError, unknown_name
from latlas.models.protocols import LatentModel
from latlas.models.vae import KIND as VAE_KIND
from latlas.models.vae import VAE

ENTRY_POINTS = "latlas.models"  # third parties register `scheme = "package.module:load"` under this group

_KINDS: dict[str, Callable[[Path], LatentModel]] = {VAE_KIND: VAE.from_pretrained}


def load_model(spec: str | Path) -> LatentModel:
    """Return the model that a spec names.

    Args:
        spec: a folder that latlas wrote, or `scheme:rest` for a scheme that an installed package registers under the
            entry point group `latlas.models`; its function gets `rest` and returns a model.

    Raises:
        MissingPathError: no such folder.
        UnknownNameError: no such scheme.
        ArtifactError: the folder holds something else, or is damaged.
    """
    text = str(spec)
    path = Path(text)
    scheme, colon, rest = text.partition(":")
    if not path.exists() and colon:
        schemes = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if scheme not in schemes:
            raise unknown_name(
                "model scheme", scheme, schemes or ["(none installed)"], hint="Or give a folder that `latlas train` wrote."
            )
        load: Callable[[str], LatentModel] = schemes[scheme].load()
        return load(rest)
    if not path.is_dir():
        raise MissingPathError(f"No model folder {text}. Train one with `latlas train dense mnist --out {text}`.")
    if not (path / CONFIG).is_file():
        raise ArtifactError(f"{text} is not a latlas model: it has no {CONFIG}.")
    record: Any = read_json(path / CONFIG)
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        found = f"a latlas {kind}" if isinstance(kind, str) else "written by another program"
        raise ArtifactError(f"{text} is not a model: it is {found}. Models are of kind {', '.join(sorted(_KINDS))}.")
    return _KINDS[kind](path)
