"""An atlas of latent spaces: train, diagnose, translate and cover generative models.

Names are imported when they are first asked for, so that `import latlas` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latlas._version import __version__

if TYPE_CHECKING:
    from latlas.data.images import ImageSet as ImageSet
    from latlas.data.loading import load_images as load_images
    from latlas.encodings.encode import encode as encode
    from latlas.encodings.encoding import Encoding as Encoding
    from latlas.inversion.descent import Budget as Budget
    from latlas.inversion.descent import Inversion as Inversion
    from latlas.maps.fit import fit_map as fit_map
    from latlas.maps.linear import LinearMap as LinearMap
    from latlas.measurements.distances import frechet_distance as frechet_distance
    from latlas.models.adapters.callables import CallableModel as CallableModel
    from latlas.models.loading import load_model as load_model
    from latlas.models.vae import VAE as VAE
    from latlas.numerics.frechet import FrechetDistance as FrechetDistance
    from latlas.studies.compare import Comparison as Comparison
    from latlas.studies.compare import compare as compare
    from latlas.studies.diagnose import Diagnosis as Diagnosis
    from latlas.studies.diagnose import diagnose as diagnose
    from latlas.studies.range_test import RangeResult as RangeResult
    from latlas.studies.range_test import invert as invert
    from latlas.studies.range_test import range_test as range_test
    from latlas.studies.support import build_support_set as build_support_set
    from latlas.supports.support_set import SupportSet as SupportSet
    from latlas.training.objectives import Objective as Objective
    from latlas.training.runs import train_vae as train_vae

_DEFINED_IN = {
    "Budget": "latlas.inversion.descent",
    "CallableModel": "latlas.models.adapters.callables",
    "Comparison": "latlas.studies.compare",
    "Diagnosis": "latlas.studies.diagnose",
    "Encoding": "latlas.encodings.encoding",
    "FrechetDistance": "latlas.numerics.frechet",
    "ImageSet": "latlas.data.images",
    "Inversion": "latlas.inversion.descent",
    "LinearMap": "latlas.maps.linear",
    "Objective": "latlas.training.objectives",
    "RangeResult": "latlas.studies.range_test",
    "SupportSet": "latlas.supports.support_set",
    "VAE": "latlas.models.vae",
    "build_support_set": "latlas.studies.support",
    "compare": "latlas.studies.compare",
    "diagnose": "latlas.studies.diagnose",
    "encode": "latlas.encodings.encode",
    "fit_map": "latlas.maps.fit",
    "frechet_distance": "latlas.measurements.distances",
    "invert": "latlas.studies.range_test",
    "load_images": "latlas.data.loading",
    "load_model": "latlas.models.loading",
    "range_test": "latlas.studies.range_test",
    "train_vae": "latlas.training.runs",
}

__all__ = [*sorted(_DEFINED_IN), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'latlas' has no attribute {name!r}")
    return getattr(import_module(_DEFINED_IN[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
