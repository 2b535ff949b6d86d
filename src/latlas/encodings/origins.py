"""What an encoding was made from, and in what two of them differ."""

from collections.abc import Mapping
from typing import Any

from latlas.base.provenance import Provenance, package_versions
from latlas.data.images import ImageSource
from latlas.encodings.shards import ShardPlan
from latlas.models.protocols import LatentModel, device_of, images_at_once, is_convolutional
from latlas.training.precision import Precision, choose_precision

_DENSE_TIMES = 4  # as many images at once as of other networks
_MOST_AT_ONCE = 1000
_SHORT = 12  # digits of a hash in a message


def encoding_precision(wanted: str, model: LatentModel) -> Precision:
    """Return what a model encodes in. "float32" changes nothing at all, not even the layout in memory: the codes of any run.

    Raises:
        UnknownNameError, SettingError: as `choose_precision`.
    """
    if wanted == "float32":
        return Precision(autocast="float32", channels_last=False, why="asked for")
    return choose_precision(wanted, convolutional=is_convolutional(model), device=device_of(model))


def encoding_batch(model: LatentModel) -> int:
    """Return how many images a model encodes at once.

    Dense layers read all of their weights for each batch, and these are many where images are large: of 64 x 64 pixels in colour,
    340 at once took a quarter less time an image than 85. Convolutions gain nothing, and want their memory for what lies between them.
    """
    at_once = images_at_once(model.image_shape)
    return at_once if is_convolutional(model) else min(_DENSE_TIMES * at_once, _MOST_AT_ONCE)


def reading_of(source: ImageSource) -> dict[str, str]:
    """Return how a source says that pixels come from its files; nothing where they are in memory."""
    reading = getattr(source, "reading", None)
    return dict(reading) if isinstance(reading, Mapping) else {}


def provenance_of(
    plan: ShardPlan,
    *,
    fingerprint: str,
    images_hash: str,
    scaling: str | None,
    reading: Mapping[str, str],
    appended_to: str | None = None,
    versions: Mapping[str, str] | None = None,
) -> Provenance:
    """Return the provenance of what a plan makes; without a clock, so that a run that was cut off leaves no trace in it."""
    made_from = {"model": fingerprint, "images": images_hash}
    if appended_to is not None:
        made_from["appended to"] = appended_to
    settings: dict[str, Any] = {
        "dtype": plan.dtype,
        "precision": plan.precision.to_json(),
        "batch_size": plan.batch_size,
        "shard_rows": plan.shard_rows,
    }
    if scaling is not None:
        settings["scaling"] = scaling
    if reading:
        settings["reading"] = dict(reading)
    return Provenance(
        made_by="encode",
        made_from=made_from,
        settings=settings,
        versions=package_versions() if versions is None else versions,
    )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Name what differs, with both values; of what only one side states, nothing is known."""

    def differ(key: str) -> bool:
        return key in there and key in here and there[key] != here[key]

    told = [
        f"{key} ({there[key]} there, {here[key]} here)"
        for key in ("dtype", "precision asked for", "scaling", "shard rows")
        if differ(key)
    ]
    if differ("fingerprint"):
        told.insert(0, f"the model ({_model(there)} there, {_model(here)} here)")
    if differ("images"):
        names = [record.get("images name", "others") for record in (there, here)]
        same = names[0] == names[1] != "others"
        told.insert(0, "the images " + (f"({names[0]} was changed since)" if same else f"({names[0]} there, {names[1]} here)"))
    if differ("appended to"):
        told.append("what is appended to")
    theirs, mine = there.get("versions", {}), here.get("versions", {})
    changed = [name for name in mine if name in theirs and theirs[name] != mine[name]]
    return [*told, *(f"{name} ({theirs[name]} there, {mine[name]} here)" for name in changed)]


def _model(record: Mapping[str, Any]) -> str:
    return f"{record.get('model')}, weights {str(record.get('fingerprint'))[:_SHORT]}"
