"""`latlas train`: a VAE; and, with options of their own, `latlas train dcgan` and `latlas train recoder`."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from latlas.cli.generators import check_side, dcgan, hush_log, recoder, stylegan2
from latlas.cli.options import BatchSize, Data, Device, Json, Name, Out, Precision, Replace, Resize, Seed

# As in models.architectures.registry, which imports torch: help is shown without it. A test holds the two equal.
ARCHITECTURES = ("dense", "conv", "resnet", "split", "draw", "autoencoder-kl")
# As training.objectives.BALANCES, for the same reason; a test holds them equal.
BALANCES = {
    "running-error": "the likelihood's variance follows the error",
    "one-sided-error": "the same, by the published rule that drifts",
    "fixed": "constant weights",
    "warm-up": "fixed, the KL weight rising from 0",
    "free-bits": "fixed, some KL of each variable for nothing",
    "learned-sigma": "the likelihood's deviation is learnt",
    "optimal-sigma": "it is the error of each batch",
}
# As training.objectives.LATENT_TERMS.
LATENT_TERMS = {
    "kl": "the KL to the prior",
    "quadratic": "its pull on the means alone, mean^2 / 2",
    "none": "nothing holds the codes",
}

# What is no VAE has other options: these words in the place of ARCH are commands of their own.
OTHERS: dict[str, Callable[..., None]] = {"dcgan": dcgan, "stylegan2": stylegan2, "recoder": recoder}


class TrainCommand(TyperCommand):
    """The verb `train`, which hands generators and recoders over to their own commands."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the command that the first word names."""
        if args and args[0] in OTHERS:
            own = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
            own.command(args[0])(OTHERS[args[0]])
            return get_command(own).make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def train(
    arch: Annotated[
        str,
        typer.Argument(
            metavar="ARCH",
            autocompletion=lambda: [*ARCHITECTURES, *OTHERS],
            help=f"{', '.join(ARCHITECTURES)}. Or {', '.join(OTHERS)}, which have other options: latlas train dcgan --help.",
        ),
    ],
    data: Data,
    out: Out = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the images.")] = 20,
    batch_size: BatchSize = 128,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Of Adam, at its highest; between 0 and 10.")] = 1e-3,
    latent: Annotated[
        int | None,
        typer.Option(
            "--latent",
            help="Variables of the latent space; of draw, in each step; of autoencoder-kl, channels.",
            show_default="as ARCH has it; 16 of dense and conv",
        ),
    ] = None,
    widths: Annotated[
        str | None, typer.Option("--widths", help="Hidden layers of dense, as 256,64,32.", show_default="256,64,32")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option("--channels", help="Stages of conv or autoencoder-kl, as 32,64,128.", show_default="as ARCH has it"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting of ARCH, as scales=4 or attention=false; may be given several times.",
            show_default="as ARCH has them",
        ),
    ] = None,
    balance: Annotated[
        str, typer.Option("--balance", help="; ".join(f"{rule}: {words}" for rule, words in BALANCES.items()) + ".")
    ] = "running-error",
    likelihood: Annotated[
        str, typer.Option("--likelihood", help="gaussian or bernoulli; bernoulli needs --balance fixed, warm-up or free-bits.")
    ] = "gaussian",
    kl_weight: Annotated[float, typer.Option("--kl-weight", help="Multiplies the KL term; 0 or more.")] = 1.0,
    latent_term: Annotated[
        str,
        typer.Option("--latent-term", help="; ".join(f"{term}: {words}" for term, words in LATENT_TERMS.items()) + "."),
    ] = "kl",
    sampling: Annotated[
        bool, typer.Option("--sampling/--no-sampling", help="Decode a sample of each posterior in training, or its mean.")
    ] = True,
    sigma: Annotated[
        float | None,
        typer.Option(
            "--sigma",
            help="Of a fixed Gaussian likelihood, in pixel values, above 0; with fixed, warm-up or free-bits.",
            show_default="1",
        ),
    ] = None,
    warm_up_steps: Annotated[
        int | None,
        typer.Option(
            "--warm-up-steps", help="Optimiser steps over which the KL weight rises; with warm-up.", show_default="2000"
        ),
    ] = None,
    free_nats: Annotated[
        float | None,
        typer.Option("--free-nats", help="KL that each variable has for nothing, in nats; with free-bits.", show_default="0.1"),
    ] = None,
    precision: Precision = "auto",
    devices: Annotated[int, typer.Option("--devices", help="Processes on each machine, each on its own device.")] = 1,
    nodes: Annotated[
        int, typer.Option("--nodes", help="Machines; torchrun or srun starts this command on each: see docs/how-to/cluster.md.")
    ] = 1,
    name: Name = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Train a VAE whose loss balances itself.

    A training with --out that was cut off goes on from its last whole epoch when started again with the same settings.
    Watch the latent variables live or die while it runs: tensorboard --logdir on the folder that --out lies in.

    Example: latlas train dense mnist --epochs 20 --out runs/digits

    Example: latlas train resnet mnist --set scales=2 --set base_dim=16 --out runs/resnet
    """
    from latlas.base.errors import SettingError, unknown_name
    from latlas.base.launch import is_first
    from latlas.cli.output import print_findings, print_json, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.models.architectures.registry import architecture, settings_from_text
    from latlas.training.objectives import Objective
    from latlas.training.resumable import check_out
    from latlas.training.runs import train_vae

    if arch in OTHERS:  # an option came before it, and so this command was taken
        raise SettingError(f"{arch} has options of its own: write it first, as in latlas train {arch} DATA --out FOLDER.")
    if arch not in ARCHITECTURES:
        if data in (*ARCHITECTURES, *OTHERS):
            raise SettingError(f"The architecture comes first, then the images: latlas train {data} {arch}.")
        raise unknown_name("architecture", arch, (*ARCHITECTURES, *OTHERS))
    if out is not None:
        check_out(out, replace=replace)
    own: dict[str, Any] = {} if latent is None else {"latent": latent}
    if widths is not None:
        own["widths"] = _sizes("--widths", widths)
    if channels is not None:
        own["channels"] = _sizes("--channels", channels)
    built = architecture(arch, **settings_from_text(arch, settings or (), given=own))
    objective = Objective(
        balance=balance,
        likelihood=likelihood,  # type: ignore[arg-type]
        kl_weight=kl_weight,
        latent_term=latent_term,
        sampling=sampling,
        sigma=sigma,
        warm_up_steps=warm_up_steps,
        free_nats=free_nats,
    )
    hush_log()
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        check_side(images, resize)
        result = train_vae(
            images,
            built,
            objective=objective,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            device=device,
            devices=devices,
            nodes=nodes,
            precision=precision,
            name=name if name is not None or out is None else out.name,
            out=out,
            replace=replace,
            progress=progress,
        )
    if not is_first():  # one of several processes speaks
        return
    last = result.history[-1]
    if json:
        print_json(
            {
                **last,
                "precision": result.precision.to_json(),
                "warnings": result.warnings,
                "images_per_second": result.images_per_second,
            }
        )
        return
    speed = f"{result.images_per_second:,.0f} images per second" if result.seconds else "trained before"
    summary = (
        f"{last['active']} of {len(last['kl'])} variables active, training error {last['squared_error']:.4f}, "
        f"KL {last['kl_nats']:.1f} nats, {speed} ({result.precision.autocast})."
    )
    print_findings([("good" if last["active"] else "note", f"Trained {result.model.name}.", summary)])
    print_findings(("warning", warning, "") for warning in result.warnings)
    if out is not None:
        say_where(out, "model")


def _sizes(option: str, text: str) -> list[int]:
    from latlas.base.errors import SettingError

    try:
        return [int(size) for size in text.split(",")]
    except ValueError as failure:
        raise SettingError(f"{option} takes whole numbers with commas between them, as 256,64,32; got {text!r}.") from failure
