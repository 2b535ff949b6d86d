"""The cloud that images make in a three-dimensional latent space, trained with sampling and without."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, SettingError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import Provenance
from latlas.base.records import plain
from latlas.base.seeds import derived_seed, generator
from latlas.base.shapes import Rows
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.measurements.distances import frechet_distance
from latlas.measurements.features import FeatureNetwork, compute_features, distance_name, features_of_batch
from latlas.measurements.reconstruction import decode_batches, measure_reconstruction
from latlas.models.architectures.dense import Dense
from latlas.models.protocols import Autoencoder, LatentModel, require_autoencoder
from latlas.models.vae import VAE
from latlas.numerics.normality import CloudShape, cloud_shape, largest_of_normals
from latlas.samplers.densities import fit_gaussian
from latlas.studies.budgets import Budget, as_budget
from latlas.studies.features import feature_network
from latlas.training.objectives import Objective
from latlas.training.runs import train_vae

Arm = Literal["sampling", "no sampling"]
ARMS: tuple[Arm, ...] = get_args(Arm)
NETWORK = Dense(widths=(256, 64, 16), latent=3)  # 784-256-64-16-3
# The post keeps the penalty on the means where it does not sample; the likelihood is that of its time.
OBJECTIVES: dict[Arm, Objective] = {
    "sampling": Objective(balance="fixed", likelihood="bernoulli"),
    "no sampling": Objective(balance="fixed", likelihood="bernoulli", latent_term="quadratic", sampling=False),
}
SLICES, SIDE = 5, 5  # slices of the latent space, and digits along each side of one: 25 a slice


@dataclass(frozen=True, kw_only=True)
class CloudSizes:
    """What a study trains on, and how much it measures."""

    train: str = "mnist:train"
    test: str = "mnist:test"
    epochs: int = 10
    seeds: int = 5
    shown: int = 5000  # test images whose codes make the cloud
    samples: int = 10_000  # generated images of a Fréchet distance, at most as many as there are test images


SIZES: dict[Budget, CloudSizes] = {
    "quick": CloudSizes(test="mnist:test[0:5000]", epochs=3, seeds=2, samples=5000),
    "paper": CloudSizes(),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Cloud:
    """One training: its cloud of codes, and the images that codes give which no image had."""

    arm: Arm
    seed: int
    means: Float32[Tensor, "n variables"]  # posterior means of the images shown
    labels: Int64[Tensor, " n"] | None
    deviations: list[float]  # of the means, by variable
    shape: CloudShape  # of the means
    sampled_shape: CloudShape | None  # of one sample of each posterior: the aggregate posterior; None without sampling
    frechet: float  # of images of codes from the prior, to test images
    frechet_fitted: (
        float  # of codes from a normal distribution with mean and covariance of the test images' codes, as training draws them
    )
    frechet_reconstructions: float  # of the posterior means of test images: what the decoder alone keeps from being real
    error: float  # squared error per pixel of test images, decoding means
    slices: Float32[
        Tensor, "codes c h w"
    ]  # SLICES * SIDE * SIDE images: codes at the prior's quantiles, the first variable a slice


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentCloudStudy:
    """Clouds with and without sampling, several seeds of each."""

    clouds: list[Cloud]
    features: str  # what the Fréchet distance may be called
    samples: int
    normal: CloudShape  # the largest of 20 normal clouds of that size: what chance alone gives
    provenance: Provenance

    def of(self, arm: Arm) -> list[Cloud]:
        """Return the clouds of one arm, by seed."""
        return sorted((cloud for cloud in self.clouds if cloud.arm == arm), key=lambda cloud: cloud.seed)

    def lower_with_sampling(self, quantity: str) -> int:
        """Return in how many seeds a quantity of the cloud (or of its shape) is lower with sampling than without."""
        pairs = zip(self.of("sampling"), self.of("no sampling"), strict=True)
        return sum(value_of(first, quantity) < value_of(second, quantity) for first, second in pairs)

    def mean_of(self, arm: Arm, quantity: str) -> float:
        """Return the mean of a quantity over seeds."""
        return statistics.mean(value_of(cloud, quantity) for cloud in self.of(arm))

    def to_json(self) -> dict[str, Any]:
        """Return every number but the codes and the pictures."""
        kept = (
            "arm",
            "seed",
            "deviations",
            "shape",
            "sampled_shape",
            "frechet",
            "frechet_fitted",
            "frechet_reconstructions",
            "error",
        )
        seeds = len(self.of("sampling"))
        record: dict[str, Any] = plain(
            {
                "clouds": [{name: getattr(cloud, name) for name in kept} for cloud in self.clouds],
                "features": self.features,
                "samples": self.samples,
                "normal": self.normal,
                "seeds": seeds,
                "lower_with_sampling": {name: self.lower_with_sampling(name) for name in QUANTITIES},
                "means": {arm: {name: self.mean_of(arm, name) for name in QUANTITIES} for arm in ARMS},
                "provenance": self.provenance.to_json(),
            }
        )
        return record


QUANTITIES = ("frechet", "frechet_fitted", "frechet_reconstructions", "energy", "empty", "energy_to_prior", "error")


def value_of(cloud: Cloud, quantity: str) -> float:
    """Return a number of a cloud, or of the shape of its means."""
    return float(getattr(cloud if hasattr(cloud, quantity) else cloud.shape, quantity))


def train_arm(
    train: ImageSet,
    arm: Arm,
    *,
    epochs: int,
    seed: int = 0,
    device: str = "auto",
    out: Path | None = None,
    progress: Progress = silent,
) -> VAE:
    """Return the network of one arm; both arms of a seed start from the same weights and see the same order.

    Args:
        train: images.
        arm: with sampling or without.
        epochs: of the training.
        seed: of weights, order and noise.
        device: "auto", "cpu", "cuda", "cuda:1".
        out: artifact folder; None to keep it in memory.
        progress: told throughout.
    """
    return train_vae(
        train,
        NETWORK,
        objective=OBJECTIVES[arm],
        epochs=epochs,
        seed=derived_seed(seed, "latent cloud"),
        device=device,
        name=f"{arm} {seed}",
        out=out,
        progress=progress,
    ).model


def measure_cloud(
    model: LatentModel,
    arm: Arm,
    test: ImageSet,
    *,
    features: FeatureNetwork,
    shown: int = 5000,
    samples: int = 10_000,
    seed: int = 0,
    progress: Progress = silent,
) -> Cloud:
    """Return the cloud of a model, and how its new images look.

    Args:
        model: encodes and decodes; a latent space of a few variables.
        arm: how it was trained: with sampling, its codes are samples of posteriors, without, their means.
        test: images that it was not trained on.
        features: of the Fréchet distance.
        shown: images of the cloud: the first so many of `test`.
        samples: new images, and test images that they are held against.
        seed: of every draw, and the number that the cloud carries.
        progress: told throughout.

    Raises:
        CapabilityError: the model lacks encoder, decoder, or with sampling posterior variances.
        IllPosedError: too few images, or codes that do not vary in every direction.
        ImageFormatError: images of another shape.
        SettingError: a latent space that is no vector, or of more than 6 variables, which no slices could show.
    """
    autoencoder = require_autoencoder(model, "A cloud of codes")
    if len(autoencoder.latent_shape) != 1 or not 2 <= autoencoder.latent_shape[0] <= 6:
        raise SettingError(
            f"A cloud is drawn of 2 to 6 latent variables, got the shape {tuple(autoencoder.latent_shape)}. Train with --latent 3."
        )
    encoding = encode(autoencoder, test, progress=progress)
    codes = encoding.mean
    if arm == "sampling":
        if encoding.log_variance is None:
            raise CapabilityError(f"{autoencoder.name} gives no posterior variances, so it was not trained with sampling.")
        noise = torch.randn(codes.shape, generator=generator(seed, "aggregate posterior"))
        codes = codes + noise * (0.5 * encoding.log_variance).exp()
    count = min(samples, len(test))
    real = compute_features(features, test.slice(0, count), progress=progress)
    prior = torch.randn(count, codes.shape[1], generator=generator(seed, "prior"))
    fitted = fit_gaussian(codes).draw(count, generator(seed, "fitted"))
    few = slice(0, shown)
    slices = torch.cat(list(decode_batches(autoencoder, slice_codes(codes.shape[1]))))
    return Cloud(
        arm=arm,
        seed=seed,
        means=encoding.mean[few],
        labels=None if test.labels is None else test.labels[few].long(),
        deviations=encoding.mean[few].double().std(dim=0).tolist(),
        shape=cloud_shape(encoding.mean[few]),
        sampled_shape=cloud_shape(codes[few]) if arm == "sampling" else None,
        frechet=_distance(autoencoder, prior, features, real),
        frechet_fitted=_distance(autoencoder, fitted, features, real),
        frechet_reconstructions=_distance(autoencoder, encoding.mean[:count], features, real),
        error=measure_reconstruction(autoencoder, encoding.mean, test, progress=progress).error,
        slices=slices,
    )


def study_latent_cloud(
    train: ImageSet,
    test: ImageSet,
    *,
    epochs: int = 10,
    seeds: int = 5,
    shown: int = 5000,
    samples: int = 10_000,
    features: FeatureNetwork | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> LatentCloudStudy:
    """Train 784-256-64-16-3 with sampling and without, several times, and return the clouds.

    Args:
        train: to train on.
        test: to encode, and to hold new images against.
        epochs: of each training.
        seeds: trainings of each arm.
        shown: test images of a cloud.
        samples: new images of a Fréchet distance.
        features: None for those that suit the images.
        seed: the first of the seeds.
        device: "auto", "cpu", "cuda", "cuda:1".
        progress: told throughout.

    Raises:
        SettingError: settings out of range.
        IllPosedError: too few test images for a cloud and a distance.
        ImageFormatError: images of another shape, or that the network cannot serve.
    """
    if seeds < 1:
        raise SettingError(f"A study needs at least 1 seed, got {seeds}.")
    check_sizes(test, shown=shown, samples=samples)
    network = features if features is not None else feature_network("auto", test)
    clouds = []
    for each in range(seed, seed + seeds):
        for arm in ARMS:
            model = train_arm(train, arm, epochs=epochs, seed=each, device=device, progress=progress)
            clouds.append(
                measure_cloud(model, arm, test, features=network, shown=shown, samples=samples, seed=each, progress=progress)
            )
    provenance = Provenance(
        made_by="study_latent_cloud",
        seed=seed,
        made_from={"train": train.content_hash, "test": test.content_hash},
        settings={
            "epochs": epochs,
            "seeds": seeds,
            "shown": shown,
            "samples": samples,
            "objectives": {arm: objective.to_json() for arm, objective in OBJECTIVES.items()},
        },
    )
    return gather_clouds(clouds, features=network, samples=min(samples, len(test)), provenance=provenance)


def gather_clouds(
    clouds: Sequence[Cloud], *, features: FeatureNetwork, samples: int, provenance: Provenance
) -> LatentCloudStudy:
    """Return the study of clouds that are measured already.

    Raises:
        SettingError: a seed without both its arms.
    """
    seeds = {arm: sorted(cloud.seed for cloud in clouds if cloud.arm == arm) for arm in ARMS}
    if not clouds or seeds["sampling"] != seeds["no sampling"]:
        raise SettingError(f"Each seed needs a cloud with sampling and one without, got {seeds}.")
    return LatentCloudStudy(
        clouds=list(clouds),
        features=distance_name(features),
        samples=samples,
        normal=largest_of_normals(*clouds[0].means.shape),
        provenance=provenance,
    )


def run(budget: str, seed: int = 0, progress: Progress = silent) -> LatentCloudStudy:
    """Run the study on digits at a budget: "paper" is ten epochs over 60,000 of them, five seeds.

    Raises:
        UnknownNameError: no such budget.
        DataUnavailableError: the digits cannot be had.
    """
    sizes = SIZES[as_budget(budget)]
    return study_latent_cloud(
        load_images(sizes.train, progress=progress),
        load_images(sizes.test, progress=progress),
        epochs=sizes.epochs,
        seeds=sizes.seeds,
        shown=sizes.shown,
        samples=sizes.samples,
        seed=seed,
        progress=progress,
    )


def check_sizes(test: ImageSet, *, shown: int, samples: int) -> None:
    """Raise unless there are images enough to measure on.

    Raises:
        IllPosedError: there are not.
    """
    least = 10 * NETWORK.latent
    if min(shown, samples, len(test)) < least:
        raise IllPosedError(
            f"A cloud and a distance need at least {least} test images, got {len(test)}, {shown} of them shown "
            f"and {samples} samples."
        )


def slice_codes(variables: int) -> Float32[Tensor, "n variables"]:
    """Return codes at the prior's quantiles: slices along the first variable, a square of the next two, the others 0.

    The quantiles are those at the middles of equally probable parts, so that the codes stand for draws from the prior.
    """
    along = torch.special.ndtri((torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE)
    depth = torch.special.ndtri((torch.arange(SLICES, dtype=torch.float64) + 0.5) / SLICES)
    grids = (depth, along, along) if variables > 2 else (torch.zeros(1, dtype=torch.float64), along, along)
    corners = torch.cartesian_prod(*grids)
    codes = torch.zeros(len(corners), variables, dtype=torch.float64)
    codes[:, : min(variables, 3)] = corners[:, -min(variables, 3) :]
    return codes.float()


def _distance(model: Autoencoder, codes: Tensor, features: FeatureNetwork, real: Rows) -> float:
    rows = torch.cat([features_of_batch(features, batch) for batch in decode_batches(model, codes.float())])
    return frechet_distance(rows, real, resamples=0).value
