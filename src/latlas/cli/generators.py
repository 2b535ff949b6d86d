"""`latlas train dcgan`, `latlas train stylegan2` and `latlas train recoder`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latlas.cli.options import BatchSize, Data, Device, Generator, Json, Name, Out, Precision, Replace, Resize, Seed

if TYPE_CHECKING:
    from latlas.data.images import ImageSet
    from latlas.training.adversarial_runs import TrainedGAN

# What all GANs have
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the images.", show_default="50")]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Steps of both networks, in place of --epochs.", show_default="as --epochs has it")
]
LearningRate = Annotated[float, typer.Option("--learning-rate", help="Of both Adams.")]
GradientPenalty = Annotated[
    float,
    typer.Option("--gradient-penalty", help="Weight of the R1 penalty; raise it where the discriminator wins; 0: none."),
]
HalfLife = Annotated[int, typer.Option("--half-life", help="Images after which the average of the weights has forgotten half.")]


def hush_log() -> None:
    """Keep Python's handler of last resort from printing a training's warnings, which the verb prints when it ends."""
    import logging

    logging.getLogger("latlas.training").addHandler(logging.NullHandler())


def check_side(images: "ImageSet", side: int | None) -> None:
    """Raise where --resize did nothing: a training would go on with images of another size than was asked for, and no model tells.

    Raises:
        SettingError: the images have another side.
    """
    from latlas.base.errors import SettingError

    _, height, width = images.image_shape
    if side is not None and (height, width) != (side, side):
        raise SettingError(
            f"{images.name} has images of {height} x {width}, and --resize {side} was asked for, which resizes pictures in files, "
            "avatars and CelebA. Leave it out, or convert an array before."
        )


def dcgan(
    data: Data,
    out: Out = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 1e-3,
    latent: Annotated[int, typer.Option("--latent", help="Variables of the latent space.")] = 64,
    channels: Annotated[
        int, typer.Option("--channels", help="Of the first and last hidden map; they double at each halving, up to 8 times.")
    ] = 32,
    gradient_penalty: GradientPenalty = 1.0,
    half_life: HalfLife = 10_000,
    precision: Precision = "float32",
    name: Name = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Train a DCGAN: a generator of images without an encoder.

    What is kept is the running average of the generator's weights. A training with --out that was cut off goes on from its
    last whole pass over the images when started again with the same settings.

    Example: latlas train dcgan avatars:train --channels 16 --epochs 30 --out runs/avatars
    """
    from latlas.models.architectures.dcgan import DCGAN
    from latlas.training.gan_runs import train_gan

    result = _trained(
        train_gan,
        lambda: DCGAN(channels=channels, latent=latent),
        data,
        resize,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        gradient_penalty=gradient_penalty,
        half_life=half_life,
        seed=seed,
        device=device,
        precision=precision,
        name=name,
        out=out,
        replace=replace,
    )
    _say(result, out, json=json)


def stylegan2(
    data: Data,
    out: Out = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 2.5e-3,
    channel_base: Annotated[
        int, typer.Option("--channel-base", help="Channels of a layer times its side, up to --channel-max.")
    ] = 512,
    channel_max: Annotated[int, typer.Option("--channel-max", help="Channels of a layer, at most.")] = 64,
    mixing: Annotated[
        float, typer.Option("--mixing", help="Share of images with a second style in their later layers, 0 to 1.")
    ] = 0.9,
    path_penalty: Annotated[float, typer.Option("--path-penalty", help="Weight of the path length penalty; 0: none.")] = 0.0,
    gradient_penalty: GradientPenalty = 1.0,
    half_life: HalfLife = 10_000,
    precision: Precision = "float32",
    name: Name = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Train a StyleGAN2 of small size: a generator with a latent space of styles.

    A thousand steps of 16 images of 32 x 32 take one core some two minutes, and good pictures ten thousand steps at least. A
    training with --out that was cut off goes on when started again with the same settings.

    Example: latlas train stylegan2 'avatars:train?size=32' --steps 10000 --out runs/stylegan2
    """
    from latlas.models.architectures.stylegan2 import StyleGAN2
    from latlas.training.stylegan_runs import train_stylegan2

    result = _trained(
        train_stylegan2,
        lambda: StyleGAN2(channel_base=channel_base, channel_max=channel_max),
        data,
        resize,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        gradient_penalty=gradient_penalty,
        path_penalty=path_penalty,
        mixing=mixing,
        half_life=half_life,
        seed=seed,
        device=device,
        precision=precision,
        name=name,
        out=out,
        replace=replace,
    )
    _say(result, out, json=json)


def _trained(
    train: Callable[..., "TrainedGAN"],
    build: Callable[[], object],
    data: str,
    resize: int | None,
    *,
    name: str | None,
    out: Path | None,
    replace: bool,
    **settings: Any,
) -> "TrainedGAN":
    """Return what a training of a generator gives, once its place is known to be free and its networks can be built."""
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.training.resumable import check_out

    if out is not None:
        check_out(out, replace=replace)
    built = build()
    hush_log()
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        check_side(images, resize)
        called = name if name is not None or out is None else out.name
        return train(images, built, name=called, out=out, replace=replace, progress=progress, **settings)


def _say(result: "TrainedGAN", out: Path | None, *, json: bool) -> None:
    """Print how the training of a generator ended."""
    import math

    from latlas.cli.output import print_findings, print_json, say_where

    last = result.history[-1]
    if json:
        record = {
            **last,
            "spread_ratio": result.spread_ratio if math.isfinite(result.spread_ratio) else None,
            "precision": result.precision.to_json(),
            "warnings": result.warnings,
            "images_per_second": result.images_per_second,
        }
        print_json(record)
        return
    # A training that had only to be written has no speed.
    speed = f", {result.images_per_second:,.0f} images per second" if result.images_per_second else ""
    # The ratio is of squared distances; images that are all equal have none.
    apart = result.spread_ratio**0.5
    distances = f"samples lie {100 * apart:.0f} % as far apart as the images, " if math.isfinite(apart) else ""
    summary = (
        f"{last['step']:,} steps, {distances}scores of real and drawn images "
        f"{last['real_score']:.2f} and {last['fake_score']:.2f}{speed}."
    )
    print_findings([("note" if result.warnings else "good", f"Trained {result.model.name}.", summary)])
    print_findings(("warning", warning, "") for warning in result.warnings)
    if out is not None:
        say_where(out, "generator")


def recoder(
    generator: Generator,
    out: Out = None,
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            help="code: error of the codes; image: error of the images that the frozen generator draws from them; both.",
        ),
    ] = "code",
    steps: Annotated[int, typer.Option("--steps", help="Of the optimiser, each on new images.")] = 5000,
    batch_size: BatchSize = 64,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Of Adam, at its highest.")] = 1e-3,
    channels: Annotated[int, typer.Option("--channels", help="Of the first map; they double at each halving.")] = 32,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", help="Folder to keep a slow generator's images in, to draw each only once.", show_default="none"
        ),
    ] = None,
    cache_images: Annotated[int, typer.Option("--cache-images", help="How many are kept at most.")] = 20_000,
    precision: Precision = "float32",
    name: Name = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Train a recoder: a network that gives codes for images of one frozen generator.

    It learns from images that the generator draws as they are needed, so that it cannot over-fit. A training with --out that
    was cut off goes on from its last hundred steps when started again with the same settings.

    Example: latlas train recoder zoo:avatars-dcgan --steps 3000 --out runs/avatar-codes
    """
    from latlas.cli.models import model_on
    from latlas.cli.output import check_outside, print_findings, print_json, say_where
    from latlas.cli.progress import shown
    from latlas.models.protocols import require_generator
    from latlas.models.recoder import RecoderSettings
    from latlas.training.recoders import train_recoder
    from latlas.training.resumable import check_out

    if out is not None:
        check_out(out, replace=replace)
    check_outside(("--cache", cache), ("--out", out))
    drawn_from = require_generator(model_on(generator, device), "Training a recoder")
    with shown() as progress:
        result = train_recoder(
            drawn_from,
            loss=loss,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            settings=RecoderSettings(channels=channels),
            cache=cache,
            cache_images=cache_images,
            seed=seed,
            device=device,
            precision=precision,
            name=name if name is not None or out is None else out.name,
            out=out,
            replace=replace,
            progress=progress,
        )
    if json:
        print_json(
            {
                "steps": steps,
                "code_error": result.code_error,
                "code_variance": result.code_variance,
                "image_error": result.image_error,
                "image_variance": result.image_variance,
                "images_per_second": result.images_per_second,
            }
        )
        return
    summary = (
        f"On samples held out: error of a code {result.code_error:.4f} (its variance {result.code_variance:.4f}), of an image "
        f"{result.image_error:.4f} (its variance {result.image_variance:.4f}); {result.images_per_second:,.0f} images per second."
    )
    print_findings(
        [("good" if result.code_error < result.code_variance else "note", f"Trained {result.recoder.name}.", summary)]
    )
    if out is not None:
        say_where(out, "recoder")
