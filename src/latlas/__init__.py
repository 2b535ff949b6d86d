"""An atlas of latent spaces: train, diagnose, translate and cover generative models.

Names are imported when they are first asked for, so that `import latlas` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latlas._version import __version__

if TYPE_CHECKING:
    from latlas.base.hub import push_to_hub as push_to_hub
    from latlas.data.images import ImageSet as ImageSet
    from latlas.data.loading import load_images as load_images
    from latlas.data.loading import open_images as open_images
    from latlas.encodings.aggregate import with_codes_of as with_codes_of
    from latlas.encodings.encode import encode as encode
    from latlas.encodings.encoding import Encoding as Encoding
    from latlas.inversion.descent import Budget as Budget
    from latlas.inversion.descent import Inversion as Inversion
    from latlas.inversion.invert import invert as invert
    from latlas.maps.estimator import LinearMapRegressor as LinearMapRegressor
    from latlas.maps.fit import fit_map as fit_map
    from latlas.maps.fit import fit_map_from as fit_map_from
    from latlas.maps.fit import paired_moments_of as paired_moments_of
    from latlas.maps.folding import fold as fold
    from latlas.maps.linear import LinearMap as LinearMap
    from latlas.maps.loading import load_map as load_map
    from latlas.maps.perceptron import fit_perceptron as fit_perceptron
    from latlas.maps.preview import PreviewMatrix as PreviewMatrix
    from latlas.maps.preview import fit_preview as fit_preview
    from latlas.maps.relocation import relocate_encoding as relocate_encoding
    from latlas.maps.spatial import fit_spatial_map as fit_spatial_map
    from latlas.maps.spatial_map import SpatialMap as SpatialMap
    from latlas.measurements.distances import frechet_distance as frechet_distance
    from latlas.measurements.ordering import order_variables as order_variables
    from latlas.models.adapters.callables import CallableModel as CallableModel
    from latlas.models.adapters.modules import from_module as from_module
    from latlas.models.exporting import export_onnx as export_onnx
    from latlas.models.generator import GeneratorModel as GeneratorModel
    from latlas.models.loading import load_model as load_model
    from latlas.models.recoder import Recoder as Recoder
    from latlas.models.recoder import with_recoder as with_recoder
    from latlas.models.vae import VAE as VAE
    from latlas.numerics.frechet import FrechetDistance as FrechetDistance
    from latlas.samplers.fit import fit_sampler as fit_sampler
    from latlas.studies.calibrate import calibrate_sampler as calibrate_sampler
    from latlas.studies.compare import compare as compare
    from latlas.studies.comparison import Comparison as Comparison
    from latlas.studies.coverage import cover as cover
    from latlas.studies.coverage import cover_all as cover_all
    from latlas.studies.coverage_record import Coverage as Coverage
    from latlas.studies.diagnose import Diagnosis as Diagnosis
    from latlas.studies.diagnose import diagnose as diagnose
    from latlas.studies.directions import study_direction as study_direction
    from latlas.studies.kl_curve import study_kl_curve as study_kl_curve
    from latlas.studies.latent_cloud import study_latent_cloud as study_latent_cloud
    from latlas.studies.little_data import study_little_data as study_little_data
    from latlas.studies.matrix import ComparisonMatrix as ComparisonMatrix
    from latlas.studies.matrix import compare_all as compare_all
    from latlas.studies.pruning import PrunedModel as PrunedModel
    from latlas.studies.pruning import prune as prune
    from latlas.studies.range_test import RangeResult as RangeResult
    from latlas.studies.range_test import range_test as range_test
    from latlas.studies.support import build_support_set as build_support_set
    from latlas.studies.trajectories import study_trajectories as study_trajectories
    from latlas.studies.variance_loss import variance_loss_point as variance_loss_point
    from latlas.studies.variance_loss import variance_loss_study as variance_loss_study
    from latlas.supports.selectors import select as select
    from latlas.supports.support_set import SupportSet as SupportSet
    from latlas.training.callbacks import CollapseGuard as CollapseGuard
    from latlas.training.callbacks import LatentHealth as LatentHealth
    from latlas.training.callbacks import LatentTrajectories as LatentTrajectories
    from latlas.training.gan_runs import train_gan as train_gan
    from latlas.training.objectives import Objective as Objective
    from latlas.training.recoders import train_recoder as train_recoder
    from latlas.training.runs import train_vae as train_vae
    from latlas.training.stylegan_runs import train_stylegan2 as train_stylegan2

_DEFINED_IN = {
    "Budget": "latlas.inversion.descent",
    "CallableModel": "latlas.models.adapters.callables",
    "CollapseGuard": "latlas.training.callbacks",
    "Comparison": "latlas.studies.comparison",
    "ComparisonMatrix": "latlas.studies.matrix",
    "Coverage": "latlas.studies.coverage_record",
    "Diagnosis": "latlas.studies.diagnose",
    "Encoding": "latlas.encodings.encoding",
    "FrechetDistance": "latlas.numerics.frechet",
    "GeneratorModel": "latlas.models.generator",
    "ImageSet": "latlas.data.images",
    "Inversion": "latlas.inversion.descent",
    "LatentHealth": "latlas.training.callbacks",
    "LatentTrajectories": "latlas.training.callbacks",
    "LinearMap": "latlas.maps.linear",
    "Objective": "latlas.training.objectives",
    "PreviewMatrix": "latlas.maps.preview",
    "PrunedModel": "latlas.studies.pruning",
    "RangeResult": "latlas.studies.range_test",
    "Recoder": "latlas.models.recoder",
    "SpatialMap": "latlas.maps.spatial_map",
    "SupportSet": "latlas.supports.support_set",
    "VAE": "latlas.models.vae",
    "build_support_set": "latlas.studies.support",
    "calibrate_sampler": "latlas.studies.calibrate",
    "compare": "latlas.studies.compare",
    "compare_all": "latlas.studies.matrix",
    "cover": "latlas.studies.coverage",
    "cover_all": "latlas.studies.coverage",
    "diagnose": "latlas.studies.diagnose",
    "encode": "latlas.encodings.encode",
    "export_onnx": "latlas.models.exporting",
    "LinearMapRegressor": "latlas.maps.estimator",
    "fit_map": "latlas.maps.fit",
    "fit_map_from": "latlas.maps.fit",
    "paired_moments_of": "latlas.maps.fit",
    "fit_perceptron": "latlas.maps.perceptron",
    "fit_preview": "latlas.maps.preview",
    "fit_sampler": "latlas.samplers.fit",
    "fit_spatial_map": "latlas.maps.spatial",
    "fold": "latlas.maps.folding",
    "frechet_distance": "latlas.measurements.distances",
    "from_module": "latlas.models.adapters.modules",
    "invert": "latlas.inversion.invert",
    "load_images": "latlas.data.loading",
    "open_images": "latlas.data.loading",
    "load_map": "latlas.maps.loading",
    "load_model": "latlas.models.loading",
    "prune": "latlas.studies.pruning",
    "order_variables": "latlas.measurements.ordering",
    "push_to_hub": "latlas.base.hub",
    "range_test": "latlas.studies.range_test",
    "relocate_encoding": "latlas.maps.relocation",
    "select": "latlas.supports.selectors",
    "study_direction": "latlas.studies.directions",
    "study_kl_curve": "latlas.studies.kl_curve",
    "study_latent_cloud": "latlas.studies.latent_cloud",
    "study_little_data": "latlas.studies.little_data",
    "study_trajectories": "latlas.studies.trajectories",
    "train_gan": "latlas.training.gan_runs",
    "train_recoder": "latlas.training.recoders",
    "train_stylegan2": "latlas.training.stylegan_runs",
    "train_vae": "latlas.training.runs",
    "variance_loss_point": "latlas.studies.variance_loss",
    "variance_loss_study": "latlas.studies.variance_loss",
    "with_codes_of": "latlas.encodings.aggregate",
    "with_recoder": "latlas.models.recoder",
}

__all__ = [*sorted(_DEFINED_IN), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'latlas' has no attribute {name!r}")
    return getattr(import_module(_DEFINED_IN[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
