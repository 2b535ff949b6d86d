"""latlas beside pythae in one run: the same networks, initial weights, images, epochs and batch; then each one's samplers.

    make bench-pythae      # some six minutes on an idle core

Three trainings a network: pythae's trainer with its default loss, latlas with the same loss (fixed, sigma = 1), latlas with its
default rule. Then, on one and the same balanced model, pythae's samplers and latlas', judged by one distance. Speeds are those on
processor time, which other programs on the machine move less than the wall's. Writes benchmarks/results/against_pythae.json.
"""

import argparse
import contextlib
import io
import json
import logging
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from racing import machine
from tables import table, write_table
from torch import Tensor, nn

from latlas.base.provenance import package_versions
from latlas.base.seeds import derived_seed, generator
from latlas.cli.progress import shown
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.encodings.encode import encode
from latlas.measurements.reconstruction import measure_reconstruction
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE
from latlas.studies.calibrate import as_file, calibrate_sampler, distance, feature_rows
from latlas.studies.features import feature_network
from latlas.training.objectives import Objective
from latlas.training.runs import train_vae

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "against_pythae.json"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense, as in the posts": ("dense", {"latent": 16}),
    "dense, wider": ("dense", {"widths": (512, 256), "latent": 16}),
    "conv": ("conv", {"channels": (16, 32, 64), "latent": 16}),
}
BATCH, RATE, SEED = 128, 1e-3, 0
_FASTER, _SMALLEST_MAXIMUM = 5.0, 1.0


def main() -> int:
    """Train, sample, measure, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="only whether it runs; writes nothing")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    count, epochs = (1_000, 1) if asked.smoke else (asked.images, asked.epochs)
    with shown() as progress:
        train = load_images(f"mnist:train[0:{count}]", progress=progress)
        test = load_images("mnist:test[0:400]" if asked.smoke else "mnist:test[0:4000]", progress=progress)
        _networks("dense", {}, train.slice(0, 1_000), test, 1)  # what is loaded late is loaded here
        rows = {name: _networks(*network, train, test, epochs) for name, network in NETWORKS.items()}
        samplers = _samplers(train, test, epochs, progress)
    bounds = [
        line
        for name, row in rows.items()
        for line in (
            _bound(f"{name}: images/s of latlas over pythae's, same loss", row["speed_ratio"], _FASTER, least=True),
            _bound(f"{name}: error of latlas over pythae's, same loss", row["error_ratio_same_loss"], 1.02, least=False),
            _bound(f"{name}: error of latlas' default over pythae's", row["error_ratio_default"], 1.0, least=False),
        )
    ]
    record = {
        "command": shlex.join(["python", "benchmarks/against_pythae.py", *sys.argv[1:]]),
        "threads": asked.threads,
        "clock": "processor time",
        "machine": machine(asked.threads),
        "images": len(train),
        "epochs": epochs,
        "batch": BATCH,
        "learning_rate": RATE,
        "networks": rows,
        "samplers": samplers,
        "bounds": bounds,
        "versions": package_versions() | {"pythae": _pythae_version()},
    }
    if not asked.smoke:
        RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_table("docs/against-others.md", "pythae", markdown(record))
        write_table("docs/against-others.md", "pythae-samplers", sampler_markdown(record))
    for line in bounds:
        print(line)
    print(json.dumps(samplers["distance"], indent=2))
    return 0 if all(line.startswith("kept") for line in bounds) else 1


def markdown(record: dict[str, Any]) -> str:
    """Return the trainings, as docs/against-others.md shows them."""
    rows = []
    for name, row in record["networks"].items():
        for label in ("pythae", "latlas, same loss", "latlas, default"):
            cell = row[label]
            speed = cell["images_per_second"] / row["pythae"]["images_per_second"]
            rows.append([name, label, f"{speed:.2f}", f"{cell['error']:.4f}", f"{cell['active']} of 16"])
        bare = row["bare_images_per_second"] / row["pythae"]["images_per_second"]
        rows.append([name, "bare steps on one batch", f"{bare:.2f}", "", ""])
    return table(["network", "trained by", "images per second over pythae's", "test error", "active"], rows)


def sampler_markdown(record: dict[str, Any]) -> str:
    """Return the samplers' distances, as docs/against-others.md shows them."""
    found = record["samplers"]
    rows = [["real images", f"{found['real']:.1f}"], ["reconstructions", f"{found['reconstructions']:.1f}"]]
    rows += [
        [f"{name} (chosen)" if name == f"latlas {found['chosen']}" else name, f"{value:.1f}"]
        for name, value in found["distance"].items()
    ]
    return table(["images of", f"Fréchet distance, {found['features']}"], rows)


def _networks(name: str, settings: dict[str, Any], train: ImageSet, test: ImageSet, epochs: int) -> dict[str, Any]:
    built = architecture(name, **settings)
    theirs = VAE(built, train.image_shape)
    seed = derived_seed(SEED, "weights")
    with torch.random.fork_rng(devices=[]):  # as train_vae draws its weights: both start from the same ones
        torch.manual_seed(seed)
        theirs = VAE(built, train.image_shape)
    seconds = _train_with_pythae(theirs, train, epochs)
    row: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in theirs.parameters()),
        "pythae": _measured(theirs, test) | {"images_per_second": epochs * len(train) / seconds},
    }
    for label, objective in (("latlas, same loss", Objective(balance="fixed")), ("latlas, default", Objective())):
        started = time.process_time()
        run = train_vae(
            train, built, objective=objective, epochs=epochs, batch_size=BATCH, learning_rate=RATE, seed=SEED, name=label
        )
        seconds = time.process_time() - started
        row[label] = _measured(run.model, test) | {"images_per_second": epochs * len(train) / seconds}
    row["bare_images_per_second"] = _bare_steps(VAE(built, train.image_shape), train)
    row["speed_ratio"] = row["latlas, same loss"]["images_per_second"] / row["pythae"]["images_per_second"]
    row["error_ratio_same_loss"] = row["latlas, same loss"]["error"] / row["pythae"]["error"]
    row["error_ratio_default"] = row["latlas, default"]["error"] / row["pythae"]["error"]
    return row


def _bare_steps(model: VAE, train: ImageSet, steps: int = 100) -> float:
    """Images a second of nothing but forward, backward and Adam on one batch: what no trainer in float32 can exceed."""
    balance = Objective(balance="fixed").build()
    optimizer = torch.optim.Adam(model.train().parameters(), RATE, fused=True)
    images = train.tensor()[:BATCH]
    best = 0.0
    for _ in range(3):
        started = time.process_time()
        for _ in range(steps):
            posterior, logits = model.reconstruct_logits(images, torch.randn(BATCH, *model.latent_shape))
            loss = balance(logits, images, posterior).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        best = max(best, steps * BATCH / (time.process_time() - started))
    return best


def _measured(model: VAE, test: ImageSet) -> dict[str, Any]:
    encoding = encode(model.eval(), test)
    found = measure_reconstruction(model, encoding.mean, test)
    return {"error": found.error, "active": int(encoding.moments().active().sum())}


def _train_with_pythae(model: VAE, train: ImageSet, epochs: int) -> float:
    """Fit our modules with pythae's trainer; return its processor seconds."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    pixels = train.tensor()
    with tempfile.TemporaryDirectory() as folder, _hushed():
        config = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, per_device_train_batch_size=BATCH, learning_rate=RATE, no_cuda=True, seed=SEED
        )
        trainer = BaseTrainer(wrapped(model), BaseDataset(pixels, torch.zeros(len(pixels))), training_config=config)
        started = time.process_time()
        trainer.train()
        seconds = time.process_time() - started
        # pythae keeps the best epoch in a copy; the modules themselves are those of the last one.
        take_over(model, trainer.model)
    return seconds


def _samplers(train: ImageSet, test: ImageSet, epochs: int, progress: Any) -> dict[str, Any]:
    from pythae.samplers import (
        GaussianMixtureSampler,
        GaussianMixtureSamplerConfig,
        NormalSampler,
        TwoStageVAESampler,
    )
    from pythae.trainers import BaseTrainerConfig

    built = architecture("conv", **NETWORKS["conv"][1])
    model = train_vae(train, built, epochs=epochs, batch_size=BATCH, learning_rate=RATE, seed=SEED, name="balanced").model
    features = feature_network("auto", test)
    calibration = calibrate_sampler(model, train, test, features=features, seed=SEED, progress=progress)
    order = torch.randperm(len(test), generator=generator(SEED, "halves"))
    half = len(test) // 2
    reporting = feature_rows(features, test.take(order[half : 2 * half].sort().values).batches(500))
    found = {f"latlas {score.sampler.name}": score.reported.value for score in calibration.scores}
    variance = {f"latlas {score.sampler.name}": score.sampler.variance_ratio for score in calibration.scores}
    pixels = train.tensor()
    if float(pixels.max()) < _SMALLEST_MAXIMUM:
        raise SystemExit("pythae's samplers refuse data whose maximum is below 1.")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("normal", "mixture of 10", "two-stage"):
            torch.manual_seed(SEED)
            theirs = wrapped(model)
            with _hushed():
                if name == "normal":
                    sampler: Any = NormalSampler(theirs)
                elif name == "two-stage":
                    sampler = TwoStageVAESampler(theirs)
                    sampler.fit(pixels, training_config=BaseTrainerConfig(output_dir=folder, num_epochs=epochs, no_cuda=True))
                else:
                    sampler = GaussianMixtureSampler(theirs, GaussianMixtureSamplerConfig(n_components=10))
                    sampler.fit(pixels)
                drawn: Tensor = sampler.sample(num_samples=half, batch_size=500)
            rows = feature_rows(features, (as_file(batch) for batch in torch.split(drawn.float().clamp(0, 1), 500)))
            found[f"pythae {name}"] = distance(rows, reporting).value
    return {
        "features": features.name,
        "count": half,
        "chosen": calibration.best.sampler.name,
        "reconstructions": calibration.reconstructions.value,
        "real": calibration.real.value,
        "distance": dict(sorted(found.items(), key=lambda item: item[1])),
        "variance_ratio": variance,
    }


def wrapped(model: VAE) -> Any:
    """Return a pythae VAE made of our encoder and decoder themselves."""
    import pythae.models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self, network: nn.Module) -> None:
            BaseEncoder.__init__(self)
            self.network = network

        def forward(self, images: Tensor) -> Any:
            mean, log_variance = self.network(images)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self, network: nn.Module) -> None:
            BaseDecoder.__init__(self)
            self.network = network

        def forward(self, codes: Tensor) -> Any:
            return ModelOutput(reconstruction=self.network(codes).sigmoid())

    config = pythae.models.VAEConfig(input_dim=tuple(model.image_shape), latent_dim=model.latent_shape[0])
    return pythae.models.VAE(config, encoder=Encoder(model.encoder), decoder=Decoder(model.decoder))


def take_over(model: VAE, trained: Any) -> None:
    """Give a model the weights that pythae's trainer left in the modules it was given."""
    model.encoder.load_state_dict(trained.encoder.network.state_dict())
    model.decoder.load_state_dict(trained.decoder.network.state_dict())


@contextlib.contextmanager
def _hushed() -> Any:
    """Keep pythae's log and bars out of ours."""
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _pythae_version() -> str:
    from importlib.metadata import version

    return version("pythae")


def _bound(what: str, value: float, bound: float, *, least: bool) -> str:
    kept = value >= bound if least else value <= bound
    return f"{'kept' if kept else 'MISSED'}: {what} = {value:.3f}, at {'least' if least else 'most'} {bound}"


if __name__ == "__main__":
    sys.exit(main())
