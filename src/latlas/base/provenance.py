"""Who made an artifact, and of what: versions, seed, content hashes.

No clock and no path enters a provenance, so that the same command gives the same artifact, byte for byte.
"""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latlas._version import __version__

UNSTATED = "unstated"  # the fingerprint of a model whose maker gave none: it tells no model from another
_RECORDED_PACKAGES = ("torch", "numpy", "lightning", "safetensors")


def tensor_hash(*tensors: Tensor) -> str:
    """Return the SHA-256 of the shapes, types and contents of tensors, in hexadecimal.

    >>> tensor_hash(torch.zeros(2)) == tensor_hash(torch.zeros(2))
    True
    >>> tensor_hash(torch.zeros(2)) == tensor_hash(torch.zeros(2, 1))
    False
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions that decide a result: latlas, Python, and the packages that compute."""
    versions = {"latlas": __version__, "python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What an artifact was made from."""

    made_by: str  # the public function, for example "train_vae"
    seed: int | None = None  # None: nothing random took part
    made_from: Mapping[str, str] = field(default_factory=dict)  # role -> content hash
    settings: Mapping[str, Any] = field(default_factory=dict)  # every argument that decided the result
    versions: Mapping[str, str] = field(default_factory=package_versions)

    def to_json(self) -> dict[str, Any]:
        """Return plain containers, ready for `json.dumps`."""
        return {
            "made_by": self.made_by,
            "seed": None if self.seed is None else index(self.seed),  # NumPy's numbers, too, become such as JSON can hold
            "made_from": dict(self.made_from),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
        }

    @property
    def model(self) -> str | None:
        """The fingerprint of the model that this was made by; None where it is not known."""
        found = self.made_from.get("model")
        return None if found == UNSTATED else found

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Provenance":
        """Read what `to_json` wrote."""
        return cls(
            made_by=str(record["made_by"]),
            seed=record.get("seed"),
            made_from=dict(record.get("made_from", {})),
            settings=dict(record.get("settings", {})),
            versions=dict(record.get("versions", {})),
        )
