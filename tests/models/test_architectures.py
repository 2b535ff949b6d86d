"""Every architecture that is registered keeps the same laws, on every image shape that it serves."""

import json
import subprocess
import sys

import pytest
import torch

from latlas.base.errors import ImageFormatError, SettingError, UnknownNameError
from latlas.models.architectures.architecture import Architecture
from latlas.models.architectures.conv import Conv
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.registry import (
    ARCHITECTURES,
    architecture,
    architecture_from_json,
    architecture_to_json,
    settings_from_text,
)
from latlas.models.vae import VAE

IMAGE_SHAPES = [(1, 28, 28), (3, 32, 32), (1, 20, 20)]
# Settings unlike the defaults, one set an architecture: a new architecture fails here until it has its own.
OTHER_SETTINGS: dict[str, dict[str, object]] = {
    "dense": {"widths": (24, 12), "latent": 5},
    "conv": {"channels": (6, 10), "latent": 5},
    "resnet": {"scales": 2, "base_dim": 6, "fc_dim": 12, "latent": 5},
    "split": {"scales": 2, "base_dim": 6, "fc_dim": 12, "latent": 5},
    "draw": {"steps": 3, "latent": 5, "hidden": 24, "attention": False, "read": 4, "write": 6, "kept": (0, 3, 5, 6, 9, 12, 14)},
    "autoencoder-kl": {"latent": 5, "channels": (8, 12), "layers": 2, "norm_groups": 4, "between": 3},
}
# What the laws are tried on: the defaults where they are small.
CASES: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, settings) for name, settings in OTHER_SETTINGS.items()},
    "dense": ("dense", {}),
    "conv": ("conv", {}),
    "draw": ("draw", {**OTHER_SETTINGS["draw"], "attention": True}),
    "draw without attention": ("draw", {**OTHER_SETTINGS["draw"], "kept": ()}),
}
LATENT_SHAPES = {"draw": (7,), "autoencoder-kl": (5, 14, 14)}  # of the other settings at 28 x 28, where not (5,)


def build(name: str, image_shape: tuple[int, int, int] = (1, 28, 28), **settings: object) -> VAE:
    torch.manual_seed(0)
    return VAE(architecture(name, **settings), image_shape)


def built(case: str, image_shape: tuple[int, int, int]) -> VAE:
    name, settings = CASES[case]
    return build(name, image_shape, **settings)


def some_images(image_shape: tuple[int, int, int], n: int = 3) -> torch.Tensor:
    return torch.rand(n, *image_shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("image_shape", IMAGE_SHAPES)
@pytest.mark.parametrize("case", CASES)
class TestEveryArchitecture:
    def test_a_posterior_has_the_latent_shape_and_an_image_its_own(self, case: str, image_shape: tuple[int, int, int]) -> None:
        model = built(case, image_shape)
        posterior = model.encode(some_images(image_shape))
        assert posterior.mean.shape == (3, *model.latent_shape)
        assert posterior.log_variance is not None
        assert posterior.log_variance.shape == (3, *model.latent_shape)
        assert model.decode(posterior.mean).shape == (3, *image_shape)
        assert model.decode_logits(posterior.mean).shape == (3, *image_shape)

    def test_decoded_images_lie_in_the_unit_interval(self, case: str, image_shape: tuple[int, int, int]) -> None:
        model = built(case, image_shape)
        for scale in (0.0, 1.0, 1e4):
            codes = scale * model.sample_codes(4, torch.Generator().manual_seed(2))
            images = model.decode(codes)
            assert bool(((images >= 0) & (images <= 1)).all())
            assert images.equal(model.decode_logits(codes).sigmoid())

    def test_the_gradient_reaches_every_parameter(self, case: str, image_shape: tuple[int, int, int]) -> None:
        model = built(case, image_shape).train()
        images = some_images(image_shape, 8)
        posterior = model.encode(images)
        assert posterior.log_variance is not None
        logits = model.decode_logits(posterior.sample(torch.Generator().manual_seed(3)))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        loss.backward()
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("to_k.bias"):
                continue  # attention is the same whatever is added to all keys
            assert parameter.grad is not None, parameter_name
            assert bool(parameter.grad.isfinite().all()), parameter_name
            assert float(parameter.grad.abs().max()) > 0, parameter_name

    def test_means_and_log_variances_are_different_functions_of_the_image(
        self, case: str, image_shape: tuple[int, int, int]
    ) -> None:
        posterior = built(case, image_shape).encode(some_images(image_shape))
        assert posterior.log_variance is not None
        assert float((posterior.mean - posterior.log_variance).detach().abs().min()) > 1e-6

    def test_an_image_has_the_same_code_in_any_company(self, case: str, image_shape: tuple[int, int, int]) -> None:
        model = built(case, image_shape).eval()
        images = some_images(image_shape, 4)
        together = model.encode(images).mean
        alone = torch.cat([model.encode(image[None]).mean for image in images])
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            torch.cat([model.decode(code[None]) for code in together]), model.decode(together), rtol=1e-4, atol=1e-5
        )

    def test_every_pixel_enters_the_code_and_every_variable_the_image(
        self, case: str, image_shape: tuple[int, int, int]
    ) -> None:
        """Nothing of an image is cropped away, and no border is left undrawn."""
        model = built(case, image_shape)
        images = some_images(image_shape).requires_grad_()
        posterior = model.encode(images)
        posterior.mean.square().sum().backward()
        assert images.grad is not None
        assert bool((images.grad != 0).any(dim=0).all())
        drawn = model.decode(model.sample_codes(8, torch.Generator().manual_seed(4)))
        assert bool((drawn[1:] != drawn[0]).any(dim=0).all()), "each pixel answers to the code"

    def test_the_same_seed_gives_the_same_weights(self, case: str, image_shape: tuple[int, int, int]) -> None:
        assert built(case, image_shape).fingerprint == built(case, image_shape).fingerprint


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_settings_come_back_from_json(name: str) -> None:
    for built in (architecture(name), architecture(name, **OTHER_SETTINGS[name])):
        again = architecture_from_json(json.loads(json.dumps(architecture_to_json(built))))
        assert again == built
        assert type(again) is type(built)
    assert architecture(name) != architecture(name, **OTHER_SETTINGS[name])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_settings_decide_the_shapes(name: str) -> None:
    model = build(name, **OTHER_SETTINGS[name])
    assert model.latent_shape == LATENT_SHAPES.get(name, (5,))
    assert model.encode(some_images((1, 28, 28))).mean.shape == (3, *model.latent_shape)


@pytest.mark.parametrize("name", ["conv", "resnet", "split", "autoencoder-kl"])
def test_convolutions_serve_coloured_images_of_64_pixels(name: str) -> None:
    model = build(name, (3, 64, 64), **OTHER_SETTINGS[name])
    assert model.decode(model.encode(some_images((3, 64, 64))).mean).shape == (3, 3, 64, 64)


@pytest.mark.parametrize("name", ["resnet", "split", "autoencoder-kl"])
def test_batch_norm_learns_nothing_from_images_that_are_only_looked_at(name: str) -> None:
    """A model comes in evaluation mode; what training mode would have changed shows that the test can see it."""
    model = build(name, **OTHER_SETTINGS[name])
    before = model.fingerprint
    model.decode(model.encode(some_images((1, 28, 28))).mean)
    assert model.fingerprint == before
    if name != "autoencoder-kl":  # which has group norm, and nothing to remember
        model.train().encode(some_images((1, 28, 28)))
        assert model.fingerprint != before


def test_settings_decide_every_layer() -> None:
    dense = build("dense", widths=(24, 12), latent=5)
    assert [tuple(p.shape) for p in dense.parameters() if p.ndim == 2] == [
        (24, 784), (12, 24), (10, 12), (12, 5), (24, 12), (784, 24),
    ]  # fmt: skip
    conv = build("conv", channels=(6, 10), latent=5)
    assert [tuple(p.shape) for p in conv.parameters() if p.ndim == 4] == [
        (6, 1, 4, 4), (10, 6, 4, 4), (10, 6, 4, 4), (6, 1, 4, 4),
    ]  # fmt: skip


def test_the_defaults_are_those_of_the_posts() -> None:
    """Fully connected, 784-256-64-32-16 and back."""
    assert Dense() == Dense(widths=(256, 64, 32), latent=16)
    sizes = [tuple(p.shape) for p in build("dense").parameters() if p.ndim == 2]
    assert sizes == [(256, 784), (64, 256), (32, 64), (32, 32), (32, 16), (64, 32), (256, 64), (784, 256)]


def test_the_defaults_of_conv_stay_what_saved_commands_rely_on() -> None:
    assert Conv() == Conv(channels=(32, 64, 128), latent=16)


def test_only_conv_asks_for_the_memory_layout_of_convolutions() -> None:
    assert {name: kind.convolutional for name, kind in ARCHITECTURES.items() if name in ("dense", "conv")} == {
        "dense": False,
        "conv": True,
    }


@pytest.mark.parametrize(("name", "setting"), [("dense", "widths"), ("conv", "channels")])
def test_one_of_everything_is_enough(name: str, setting: str) -> None:
    model = build(name, (1, 2, 2), **{setting: [1], "latent": 1})
    assert model.decode(model.encode(some_images((1, 2, 2))).mean).shape == (3, 1, 2, 2)


def test_lists_from_a_command_line_or_json_are_frozen() -> None:
    assert architecture("dense", widths=[8, 4]) == Dense(widths=(8, 4))


def test_without_hidden_layers_dense_is_a_linear_model(generator: torch.Generator) -> None:
    model = build("dense", widths=())
    a, b = torch.rand(2, 1, 28, 28, generator=generator)
    middle = model.encode(torch.stack([a, b, (a + b) / 2])).mean
    torch.testing.assert_close(middle[2], (middle[0] + middle[1]) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 5, 8, 9, 20, 27, 31, 33])
def test_conv_serves_any_square_side(side: int) -> None:
    model = build("conv", (3, side, side), channels=(4, 6, 8), latent=3)
    assert model.decode(model.encode(some_images((3, side, side))).mean).shape == (3, 3, side, side)


def test_dense_serves_any_shape() -> None:
    model = build("dense", (3, 7, 12), widths=(9,), latent=2)
    assert model.decode(model.encode(some_images((3, 7, 12))).mean).shape == (3, 3, 7, 12)


def test_dense_keeps_pixels_in_their_places() -> None:
    """Logits are laid out as images are flattened: a decoder with a known last layer draws that layer's picture."""
    model = build("dense", (3, 4, 5), widths=(6,), latent=2)
    with torch.no_grad():
        model.decoder.head.weight.zero_()
        model.decoder.head.bias.copy_(torch.arange(60.0))
    assert model.decode_logits(torch.zeros(1, 2))[0].equal(torch.arange(60.0).reshape(3, 4, 5))


def test_conv_looks_at_an_image_and_draws_it_in_the_same_place() -> None:
    """Padding and cropping must shift alike: the image 27 wide lies in its padded frame where it is cut out again."""
    model = build("conv", (1, 27, 27), channels=(4,), latent=3)
    left, right, top, bottom = model.encoder.padding
    assert [left, right, top, bottom] == [0, 1, 0, 1]
    assert [-side for side in model.decoder.crop] == [left, right, top, bottom]


def test_conv_refuses_oblong_images_with_the_remedy() -> None:
    with pytest.raises(ImageFormatError, match=r"conv serves square images, got 28 x 32. Crop or resize them \(--resize N\)"):
        build("conv", (1, 28, 32))


@pytest.mark.parametrize(("typed", "meant"), [("desne", "dense"), ("convv", "conv")])
def test_an_unknown_architecture_is_answered_with_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Unknown architecture '{typed}'. Did you mean '{meant}'"):
        architecture(typed)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_unknown_setting_is_answered_with_those_there_are(name: str) -> None:
    known = ", ".join(sorted(OTHER_SETTINGS[name]))
    with pytest.raises(SettingError, match=f"The {name} architecture has no setting 'lattent'; it has {known}"):
        architecture(name, lattent=3)


@pytest.mark.parametrize(
    ("name", "texts", "words"),
    [
        ("resnet", ["scales=3.5"], "resnet: scales takes a whole number, got '3.5'"),
        ("draw", ["attention=maybe"], "draw: attention takes true or false, got 'maybe'"),
        ("conv", ["channels=4;6"], "conv: channels takes whole numbers with commas between them, got '4;6'"),
        ("resnet", ["scales"], "A setting is written name=value, as latent=8; got 'scales'"),
        ("draw", ["steps=2", "steps=3"], "The setting 'steps' of draw is given twice"),
        ("draw", ["latent=3"], "The setting 'latent' of draw is given twice"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(name: str, texts: list[str], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        settings_from_text(name, texts, given={"latent": 2})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_setting_can_be_typed(name: str) -> None:
    """As a person types it: name=value, lists with commas, true and false in words."""
    texts = [
        f"{setting}={','.join(map(str, value)) if isinstance(value, tuple) else str(value).lower()}"
        for setting, value in OTHER_SETTINGS[name].items()
    ]
    assert architecture(name, **settings_from_text(name, texts, given={})) == architecture(name, **OTHER_SETTINGS[name])


@pytest.mark.parametrize("latent", [0, -1])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sizes_below_one_are_refused(name: str, latent: int) -> None:
    with pytest.raises(SettingError, match=f"{name}: latent must be at least 1, in whole numbers, got {latent}"):
        architecture(name, latent=latent)


def test_sizes_that_are_not_whole_are_refused_in_our_words_where_no_shape_checker_runs() -> None:
    """In a process of its own, since pytest's type checker would answer first."""
    script = """
from latlas.base.errors import SettingError
from latlas.models.architectures.registry import architecture
for name in ("dense", "conv"):
    for latent in (2.5, "8", None):
        try:
            architecture(name, latent=latent)
        except SettingError as refusal:
            print(refusal)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{name}: latent must be at least 1, in whole numbers, got {latent!r}."
        for name in ("dense", "conv")
        for latent in (2.5, "8", None)
    ]


@pytest.mark.parametrize(("name", "setting"), [("dense", "widths"), ("conv", "channels")])
def test_each_layer_must_have_a_size(name: str, setting: str) -> None:
    with pytest.raises(SettingError, match=rf"{name}: {setting} must be at least 1, in whole numbers, got \(8, 0\)"):
        architecture(name, **{setting: [8, 0]})


def test_conv_without_a_stage_is_refused() -> None:
    with pytest.raises(SettingError, match="channels must name at least one stage"):
        Conv(channels=())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_architecture_is_one_frozen_record_under_its_own_name(name: str) -> None:
    built = architecture(name)
    assert isinstance(built, Architecture)
    assert built.name == name
    with pytest.raises(AttributeError):
        built.latent = 3  # type: ignore[attr-defined]
