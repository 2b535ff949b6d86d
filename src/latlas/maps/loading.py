"""A folder -> the map in it, of whichever kind."""

from pathlib import Path

from latlas.base.artifacts import peek
from latlas.base.errors import ArtifactError
from latlas.maps import linear, spatial_map
from latlas.maps.linear import LinearMap
from latlas.maps.spatial_map import SpatialMap
from latlas.models.carried_folders import artifact_folder


def load_map(folder: str | Path) -> LinearMap | SpatialMap:
    """Read a map that `save_pretrained` wrote, between vector or between spatial codes.

    Args:
        folder: of the map, or of what `latlas map` wrote, with the map in `map/`; or a Hub id; or `zoo:name`.

    Raises:
        MissingPathError, ArtifactError: no map there, or a damaged one.
        UnknownNameError: no such map in the zoo.
    """
    path = artifact_folder(folder, (linear.KIND, spatial_map.KIND), called="map")
    if (peek(path) or {}).get("kind") not in (linear.KIND, spatial_map.KIND) and peek(path / "map") is not None:
        path = path / "map"  # what `latlas map` writes is a report, with the map in it
    kind = (peek(path) or {"kind": linear.KIND})["kind"]  # what is no artifact at all is told by the reading of one
    if kind == spatial_map.KIND:
        return SpatialMap.from_pretrained(path)
    if kind != linear.KIND:
        raise ArtifactError(f"{path} holds a latlas {kind}, where a latlas {linear.KIND} or {spatial_map.KIND} is needed.")
    return LinearMap.from_pretrained(path)
