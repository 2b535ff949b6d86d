"""A DCGAN from settings to artifact."""

from functools import partial
from pathlib import Path

from latlas.base.errors import SettingError
from latlas.base.progress import Progress, silent
from latlas.base.seeds import derived_seed
from latlas.data.images import ImageSet
from latlas.models.generator import GeneratorArchitecture, generator_architecture
from latlas.training.adversarial import AdversarialSchedule, AdversarialTraining, renew_batch_statistics
from latlas.training.adversarial_runs import TrainedGAN, check_settings, steps_in_all, train_adversarially
from latlas.training.asked import checked_seed, learning, number, whole


@learning()
def train_gan(
    images: ImageSet,
    arch: GeneratorArchitecture | str = "dcgan",
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    gradient_penalty: float = 1.0,
    half_life: int = 10_000,
    seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    name: str | None = None,
    out: str | Path | None = None,
    replace: bool = False,
    progress: Progress = silent,
) -> TrainedGAN:
    """Fit a generator to images, against a discriminator; keep the running average of its weights.

    The same arguments give the same weights on the same machine. With `out`, a training that was cut off goes on from its
    last whole pass over the images when it is started again with the same settings.

    Args:
        images: what to fit.
        arch: an architecture, or the name of one with its default settings.
        epochs: passes over the images; 50 if neither this nor `steps` is given.
        steps: of both optimisers, in place of `epochs`.
        batch_size: images of a step.
        learning_rate: of both Adams.
        gradient_penalty: gamma of the R1 penalty, of images in [0, 1]: raise it where the discriminator wins; 0: none.
        half_life: images after which the average has forgotten half; in a short training it reaches less far back.
        seed: decides initial weights, order and codes.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "float32", "bfloat16", or "auto" (see `choose_precision`).
        name: what reports call the generator.
        out: artifact folder: the generator, its history, and TensorBoard scalars under `run`.
        replace: whether an earlier artifact there may be replaced.
        progress: called after each step of the loop with the task, steps done, steps in all, and a note with the losses; `print`
            will do.

    Raises:
        SettingError: a setting out of range.
        OutputExistsError: `out` already holds something.
        ImageFormatError: images that the architecture cannot serve.
        NonFiniteError: a loss left the numbers.
        ArtifactError: nothing can be written at `out`.
        KeyboardInterrupt: with a message that says what was kept.
    """
    epochs, steps = whole(epochs, "epochs"), whole(steps, "steps")
    batch_size, half_life = whole(batch_size, "batch size"), whole(half_life, "half-life")
    learning_rate, seed = number(learning_rate, "learning rate"), checked_seed(seed)
    gradient_penalty = number(gradient_penalty, "gradient penalty")
    check_settings(images, epochs, steps, batch_size, learning_rate, gradient_penalty, half_life)
    built = generator_architecture(arch) if isinstance(arch, str) else arch
    if built.name == "stylegan2":  # mixing, noise and unclipped images are no part of this recipe
        raise SettingError("A StyleGAN2 has a training of its own: train_stylegan2, or latlas train stylegan2.")
    return train_adversarially(
        images,
        built,
        AdversarialSchedule(
            steps=steps_in_all(images, epochs=epochs, steps=steps, batch_size=batch_size),
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=derived_seed(seed, "training"),
            gradient_penalty=gradient_penalty,
            half_life=half_life,
        ),
        training=AdversarialTraining,
        finish=partial(renew_batch_statistics, seed=seed),
        made_by="train_gan",
        seed=seed,
        device=device,
        precision=precision,
        name=name,
        out=out,
        replace=replace,
        progress=progress,
    )
