"""First slips of somebody with a model of his own, made as in a notebook: without the checks that the tests switch on.

Prints one JSON object: for each slip, the kind of error and its text; or what came of it.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import latlas
from latlas.base.errors import LatlasError

SHAPE = (1, 8, 8)


class Own(nn.Module):
    """A linear autoencoder with one batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into, self.norm, self.out = nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 64)

    def encode(self, images: Tensor) -> Tensor:
        return self.norm(self.into(images.flatten(1)))

    def decode(self, codes: Tensor) -> Tensor:
        return self.out(codes).view(-1, *SHAPE).sigmoid()


class Pixels:
    """Features: every second pixel."""

    name, size = "pixels", 32

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, ::2]


RAW = Own().eval()
MODEL = latlas.from_module(RAW, image_shape=SHAPE, latent_shape=(4,), standard_normal=True, name="own")
PIXELS = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(1))
IMAGES = latlas.ImageSet("own images", PIXELS)
FEW = latlas.Budget(steps=2)

QUESTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "encode": lambda model, images: latlas.encode(model, images),
    "with_codes_of": lambda model, images: latlas.with_codes_of(model, images),
    "order_variables": lambda model, images: latlas.order_variables(model, images),
    "diagnose": lambda model, images: latlas.diagnose(model, images),
    "compare": lambda model, images: latlas.compare(model, MODEL, images),
    "compare with": lambda model, images: latlas.compare(MODEL, model, images),
    "compare_all": lambda model, images: latlas.compare_all([MODEL, model], images),
    "build_support_set": lambda model, images: latlas.build_support_set(model, images, variables=2),
    "invert": lambda model, images: latlas.invert(model, images, budget=FEW),
    "range_test": lambda model, images: latlas.range_test(model, images, budget=FEW, samples=30),
    "prune": lambda model, images: latlas.prune(model, images, keep=2),
    "calibrate_sampler": lambda model, images: latlas.calibrate_sampler(model, images, IMAGES, features=Pixels()),
    "calibrate_sampler on": lambda model, images: latlas.calibrate_sampler(model, IMAGES, images, features=Pixels()),
    "variance_loss_point": lambda model, images: latlas.variance_loss_point(model, images),
    "train_recoder": lambda model, images: latlas.train_recoder(model, steps=1, batch_size=2),
}
TRAININGS: dict[str, Callable[[Any], Any]] = {
    "train_vae": lambda images: latlas.train_vae(images, epochs=1),
    "train_gan": lambda images: latlas.train_gan(images, steps=1),
    "train_stylegan2": lambda images: latlas.train_stylegan2(images, steps=1),
}
NO_MODELS = {"a network": RAW, "a name": "zoo:digits-dense", "nothing": None}
NO_IMAGES = {"a tensor": PIXELS, "an array": PIXELS.numpy(), "a name": "mnist:test[0:60]", "nothing": None}


def calibrate(**settings: Any) -> Any:
    return latlas.calibrate_sampler(MODEL, IMAGES, IMAGES, **{"features": Pixels(), "kinds": ("prior",), **settings})


def train(**settings: Any) -> Any:
    return latlas.train_vae(IMAGES, **{"epochs": 1, **settings})


def fit_on(chosen: Any) -> str:
    return latlas.compare(MODEL, MODEL, IMAGES, fit_on=chosen, brief=True).fitted_on


OTHERS: dict[str, Callable[[], Any]] = {
    "a class for a network": lambda: latlas.from_module(Own, image_shape=SHAPE, latent_shape=(4,)),  # type: ignore[arg-type]
    "a function for a network": lambda: latlas.from_module(abs, image_shape=SHAPE, latent_shape=(4,)),  # type: ignore[arg-type]
    "a range in words": lambda: latlas.from_module(RAW, image_shape=SHAPE, latent_shape=(4,), value_range="-1,1"),  # type: ignore[arg-type]
    "a range of three": lambda: latlas.from_module(RAW, image_shape=SHAPE, latent_shape=(4,), value_range=(0, 1, 2)),  # type: ignore[arg-type]
    "a tensor for a function": lambda: latlas.CallableModel(
        name="own",
        image_shape=SHAPE,
        latent_shape=(4,),
        decode_with=torch.zeros(3),  # type: ignore[arg-type]
    ),
    "a network to load": lambda: latlas.load_model(RAW),  # type: ignore[arg-type]
    "a tensor to load": lambda: latlas.load_images(PIXELS),  # type: ignore[arg-type]
    "a tensor to open": lambda: latlas.open_images(PIXELS),  # type: ignore[arg-type]
    "images, shown": lambda: IMAGES,
    "codes, shown": lambda: latlas.encode(MODEL, IMAGES),
    "a seed of NumPy in a record": lambda: json.dumps(
        latlas.range_test(MODEL, IMAGES.slice(0, 2), budget=FEW, samples=30, seed=np.int64(3)).to_json()["provenance"]["seed"]
    ),
    "nothing to load": lambda: latlas.load_model(None),  # type: ignore[arg-type]
    "a list to fit on": lambda: fit_on(list(range(20))),
    "a mask to fit on": lambda: fit_on(torch.arange(48) < 20),
    "a word to fit on": lambda: fit_on("half"),
    "an index beyond to fit on": lambda: fit_on([0, 1, 48]),
    "floats to fit on": lambda: fit_on(torch.ones(20)),
    "none to fit on": lambda: fit_on([]),
    "landmarks that are images": lambda: latlas.cover(MODEL, IMAGES, IMAGES),  # type: ignore[arg-type]
    "a kind by itself": lambda: [score.sampler.name for score in calibrate(kinds="moments", renormalised=False).scores],
    "a kind misspelt": lambda: calibrate(kinds="mixtur"),
    "no kind": lambda: calibrate(kinds=()),
    "features by name": lambda: calibrate(features="digits"),
    "a network for features": lambda: calibrate(features=nn.Flatten()),
    "features by name to compare by": lambda: latlas.compare(MODEL, MODEL, IMAGES, features="digits"),  # type: ignore[arg-type]
    "features by name to judge by": lambda: latlas.range_test(MODEL, IMAGES, budget=FEW, samples=30, features="digits"),  # type: ignore[arg-type]
    "a name for a recoder": lambda: latlas.invert(MODEL, IMAGES, budget=FEW, recoder="runs/recoder"),  # type: ignore[arg-type]
    "a budget by name": lambda: latlas.invert(MODEL, IMAGES, budget="quick"),  # type: ignore[arg-type]
    "a budget of half steps": lambda: latlas.Budget(steps=2.5),  # type: ignore[arg-type]
    "a budget of NumPy": lambda: json.dumps(latlas.Budget(steps=np.int64(60)).steps),  # type: ignore[arg-type]
    "a budget without end": lambda: latlas.Budget(learning_rate=float("inf")),
    "half an epoch": lambda: train(epochs=0.5),
    "a float of images a step": lambda: train(batch_size=32.0),
    "a learning rate in words": lambda: train(learning_rate="1e-3"),
    "no seed": lambda: train(seed=None),
    "a float for a seed": lambda: train(seed=0.0),
    "a seed of NumPy": lambda: type(train(seed=np.int64(3), epochs=np.int64(1)).model.provenance.seed).__name__,
    "a function for a callback": lambda: train(callbacks=[print]),
    "a callback by itself": lambda: len(train(callbacks=latlas.LatentHealth(IMAGES)).history),
    "a network for an architecture": lambda: train(arch=RAW),
    "an objective by name": lambda: train(objective="fixed"),
    "a step of half": lambda: latlas.train_gan(IMAGES, steps=1.5),  # type: ignore[arg-type]
    "a list to watch": lambda: latlas.LatentHealth([1.0, 2.0]),  # type: ignore[arg-type]
}


def outcome(slip: Callable[[], Any]) -> list[str]:
    """Return the kind of error and its text, or what came of it; "raw" of an error that is not ours."""
    try:
        return ["", repr(slip())]
    except LatlasError as failure:
        return [type(failure).__name__, str(failure)]
    except Exception as failure:  # what is to be found out
        return [f"raw {type(failure).__name__}", str(failure)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    slips: dict[str, Callable[[], Any]] = dict(OTHERS)
    for question, ask in QUESTIONS.items():
        for title, came in NO_MODELS.items():
            slips[f"{question}: {title} for a model"] = lambda ask=ask, came=came: ask(came, IMAGES)  # type: ignore[misc]
        if question != "train_recoder":
            for title, came in NO_IMAGES.items():
                slips[f"{question}: {title} for images"] = lambda ask=ask, came=came: ask(MODEL, came)  # type: ignore[misc]
    for training, fit in TRAININGS.items():
        for title, came in NO_IMAGES.items():
            slips[f"{training}: {title} for images"] = lambda fit=fit, came=came: fit(came)  # type: ignore[misc]
    print(json.dumps({title: outcome(slip) for title, slip in slips.items()}))
