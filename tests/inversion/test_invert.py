"""Inversion of any generator: where it starts, what it may cost, and what it refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import distance
from torch import Tensor

from latlas.base.errors import (
    CapabilityError,
    CodeShapeError,
    IllPosedError,
    ImageFormatError,
    NonFiniteError,
    SettingError,
    UnknownNameError,
)
from latlas.base.seeds import generator as seeded
from latlas.data.images import ImageSet
from latlas.inversion.descent import Budget, descend
from latlas.inversion.invert import invert, mean_code, nearest_codes
from latlas.inversion.noise import noise_inputs, noise_penalty, normalised
from latlas.inversion.prior import code_prior
from latlas.models.adapters.callables import CallableModel
from latlas.models.adapters.stylegan2 import StyleGANModel
from latlas.models.architectures.stylegan2 import StyleGAN2, StyleGAN2Generator
from latlas.models.recoder import Recoder, with_recoder

SHAPE, LATENT = (1, 4, 5), 3


def mixing() -> Tensor:
    return 0.05 * torch.randn(LATENT, 20, generator=torch.Generator().manual_seed(1))


def draw(codes: Tensor) -> Tensor:
    """Waves: a descent from elsewhere than near the code ends elsewhere."""
    return (0.5 + 0.5 * torch.sin(60 * codes @ mixing().to(codes.dtype))).unflatten(1, SHAPE)


def planted(decode_with: Callable[[Tensor], Tensor] = draw, **options: Any) -> CallableModel:
    return CallableModel(name="planted", image_shape=SHAPE, latent_shape=(LATENT,), decode_with=decode_with, **options)


def knowing(codes: Tensor) -> CallableModel:
    """An encoder that gives these codes, whatever the images."""
    return planted(encode_with=lambda images: codes[: len(images)])


@pytest.fixture
def codes(generator: torch.Generator) -> Tensor:
    return torch.randn(6, LATENT, generator=generator)


@pytest.fixture
def images(codes: Tensor) -> ImageSet:
    return ImageSet("own", draw(codes))


@pytest.fixture(scope="module")
def stylegan() -> StyleGANModel:
    torch.manual_seed(0)
    settings = StyleGAN2(latent=4, style=4, layers=2, channel_base=64, channel_max=8)
    network = settings.generator((3, 16, 16))
    assert isinstance(network, StyleGAN2Generator)
    network.mapping.w_avg.copy_(torch.tensor([0.3, -0.2, 0.1, 0.5]))
    for layer in network.synthesis.modules():  # training starts from noise without strength
        if hasattr(layer, "noise_strength"):
            layer.noise_strength.data.fill_(0.3)
    return StyleGANModel(network, (3, 16, 16), space="w")


# Starts


def test_hybrid_is_the_recoder_where_there_is_one_else_the_mean_and_noise(codes: Tensor, images: ImageSet) -> None:
    budget = Budget(steps=0)
    assert invert(planted(), images, budget=budget).start_names == ("mean", "noise 1", "noise 2")
    assert invert(knowing(codes), images, budget=budget).start_names == ("recoder",)
    found = invert(planted(), images, budget=budget, recoder=knowing(codes))
    assert found.start_names == ("recoder",)
    torch.testing.assert_close(found.codes, codes)
    assert float(found.errors.max()) < 1e-12


def test_the_best_start_wins_for_each_image_and_is_named(codes: Tensor, images: ImageSet) -> None:
    """The encoder knows the first three images and is far off for the others."""
    half = codes.clone()
    half[3:] += 30
    found = invert(knowing(half), images, budget=Budget(steps=80), start=("recoder", "noise"), starts=6)
    assert found.winners[:3].tolist() == [0, 0, 0]
    assert len(set(found.winners.tolist())) > 1
    torch.testing.assert_close(found.errors, found.start_errors.amin(dim=0))
    assert found.start_names == ("recoder", *(f"noise {i}" for i in range(1, 7)))
    assert found.image_curves.shape == (7, 6, 81)
    torch.testing.assert_close(found.image_curves[:, :, -1], found.start_errors)


def test_what_an_image_gets_from_noise_does_not_depend_on_its_company(images: ImageSet) -> None:
    """Were each row to start from a draw of its own, the third image alone would start where the first did."""
    together = invert(planted(), images, budget=Budget(steps=20), start="noise", starts=3, seed=5)
    for i in range(6):
        alone = invert(planted(), images.slice(i, i + 1), budget=Budget(steps=20), start="noise", starts=3, seed=5)
        torch.testing.assert_close(alone.start_errors[:, 0], together.start_errors[:, i], rtol=1e-4, atol=1e-9)
    other = invert(planted(), images, budget=Budget(steps=20), start="noise", starts=3, seed=6)
    assert not other.start_errors.equal(together.start_errors)


def test_the_mean_code_is_the_one_that_the_generator_states(stylegan: StyleGANModel) -> None:
    for space, count in (("w", 4), ("w+", 4 * stylegan.network.num_ws)):
        model = stylegan.in_space(space)
        mean = mean_code(model, seed=0)
        assert mean.shape == (1, count)
        torch.testing.assert_close(mean[0, -4:], torch.tensor([0.3, -0.2, 0.1, 0.5]))
    shifted = planted(sample_with=lambda n, generator: 0.5 + 0.1 * torch.randn(n, LATENT, generator=generator))
    torch.testing.assert_close(mean_code(shifted, seed=0), torch.full((1, LATENT), 0.5), rtol=0, atol=0.01)  # 0.1 / 45


def test_w_plus_codes_are_vectors_and_come_nearer_than_w(stylegan: StyleGANModel, generator: torch.Generator) -> None:
    """Of an image that no single style makes."""
    wide = stylegan.in_space("w+")
    own = wide.sample_codes(2, generator) + 0.7 * torch.randn(2, *wide.latent_shape, generator=generator)
    images = ImageSet("styles", wide.decode(own).detach())
    in_w = invert(stylegan, images, start="mean", budget=Budget(steps=40, learning_rate=0.1))
    alike = in_w.codes.repeat(1, wide.network.num_ws)
    budget = Budget(steps=40, learning_rate=0.02)
    in_wide = descend(wide, images, [alike], budget=budget)
    torch.testing.assert_close(in_wide.image_curves[0, :, 0], in_w.errors)  # the same images
    assert bool((in_wide.errors < 0.9 * in_w.errors).all())
    assert invert(wide, images, start="mean", budget=Budget(steps=1)).codes.shape == own.shape


# Prior


def test_distances_are_scipys_mahalanobis_over_the_number_of_variables(generator: torch.Generator) -> None:
    shape = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [0.0, 0.3, 2.0]])
    drawn = planted(sample_with=lambda n, draws: 2 + torch.randn(n, LATENT, generator=draws) @ shape.T)
    prior, codes = code_prior(drawn, seed=0), 3 * torch.randn(20, LATENT, generator=generator)
    inverse = np.linalg.inv((shape @ shape.T).numpy())
    expected = [distance.mahalanobis(code, np.full(LATENT, 2.0), inverse) ** 2 / LATENT for code in codes.numpy()]
    np.testing.assert_allclose(prior.distance(codes).numpy(), expected, rtol=0.15)  # moments of 2,000 draws
    fresh = drawn.sample_codes(4000, generator)
    assert float(prior.distance(fresh).mean()) == pytest.approx(1, abs=0.1)


def test_a_direction_of_a_hundredth_of_the_spread_still_belongs_to_the_whole(generator: torch.Generator) -> None:
    """Two variables that nearly repeat each other, by SciPy's Mahalanobis distance of the planted law."""
    shape = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.01, 0.0], [0.0, 0.0, 1.0]])
    drawn = planted(sample_with=lambda n, draws: torch.randn(n, LATENT, generator=draws) @ shape.T)
    prior, codes = code_prior(drawn, seed=0), torch.randn(20, LATENT, generator=generator)
    assert prior.whole
    inverse = np.linalg.inv((shape @ shape.T).double().numpy())
    expected = [distance.mahalanobis(code, np.zeros(LATENT), inverse) ** 2 / LATENT for code in codes.double().numpy()]
    np.testing.assert_allclose(prior.distance(codes).numpy(), expected, rtol=0.2)


def test_codes_in_a_subspace_are_measured_by_their_variances(stylegan: StyleGANModel) -> None:
    """Draws of W+ have one style in all layers; a prior that forbade others would make W of it."""
    assert code_prior(stylegan, seed=0).whole
    wide = code_prior(stylegan.in_space("w+"), seed=0)
    assert not wide.whole
    assert wide.whitening.shape == (4 * stylegan.network.num_ws,)


def test_in_a_subspace_distances_are_scipys_standardised_euclidean(generator: torch.Generator) -> None:
    """Variances 1, 4 and 9, of which the second variable is twice the first: no covariance of these has an inverse."""

    def sample(n: int, draws: torch.Generator) -> Tensor:
        rows = torch.randn(n, 2, generator=draws)
        return 5 + torch.stack([rows[:, 0], 2 * rows[:, 0], 3 * rows[:, 1]], dim=1)

    prior, codes = code_prior(planted(sample_with=sample), seed=0), 3 * torch.randn(20, LATENT, generator=generator)
    assert not prior.whole
    expected = [distance.seuclidean(code, np.full(3, 5.0), [1.0, 4.0, 9.0]) ** 2 / 3 for code in codes.numpy()]
    np.testing.assert_allclose(prior.distance(codes).numpy(), expected, rtol=0.15)  # moments of 2,000 draws


@pytest.mark.parametrize(
    ("variables", "draws", "whole"), [(3, 2000, True), (200, 2000, True), (300, 3000, True), (1025, 2000, False)]
)
def test_a_whole_covariance_is_of_ten_draws_a_variable(variables: int, draws: int, whole: bool) -> None:
    asked: list[int] = []

    def sample(n: int, chance: torch.Generator) -> Tensor:
        asked.append(n)
        return torch.randn(n, variables, generator=chance)

    wide = CallableModel(name="wide", image_shape=SHAPE, latent_shape=(variables,), decode_with=draw, sample_with=sample)
    assert code_prior(wide, seed=0).whole is whole
    assert set(asked) == {draws}


def test_the_seed_decides_every_draw(images: ImageSet, codes: Tensor) -> None:
    """Of the prior, of the mean, of the nearest; and nothing else does."""
    far = knowing(codes + 1)
    settings: list[dict[str, Any]] = [
        {"start": "recoder", "recoder": far, "prior_weight": 0.1, "budget": Budget(steps=5)},
        {"start": "mean", "budget": Budget(steps=0)},
        {"start": "nearest", "budget": Budget(steps=0)},
    ]
    for chosen in settings:
        first, again, other = (invert(planted(), images, seed=seed, **chosen).codes for seed in (1, 1, 2))
        assert first.equal(again)
        assert not first.equal(other)
    assert not code_prior(planted(), seed=1).mean.equal(code_prior(planted(), seed=2).mean)


def test_a_prior_keeps_codes_nearer(images: ImageSet) -> None:
    norms = [
        float(invert(planted(), images, budget=Budget(steps=60), prior_weight=weight).codes.square().sum())
        for weight in (0.0, 0.1, 10.0)
    ]
    assert norms == sorted(norms, reverse=True)
    assert norms[2] < 0.1 * norms[0]


def test_a_generator_of_one_code_has_no_prior() -> None:
    with pytest.raises(IllPosedError, match="draws one and the same code"):
        code_prior(planted(sample_with=lambda n, _: torch.ones(n, LATENT)), seed=0)


# Noise


def test_the_penalty_is_the_squared_correlation_of_neighbours_at_every_scale(generator: torch.Generator) -> None:
    noise = torch.randn(2, 1, 16, 16, generator=generator)
    expected = np.zeros(2)
    for i, start in enumerate(noise[:, 0].double().numpy()):
        level = start
        for _ in range(2):  # sides 16 and 8
            expected[i] += sum(np.mean(level * np.roll(level, 1, axis)) ** 2 for axis in (0, 1))
            level = (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2]) / 2
    np.testing.assert_allclose(noise_penalty([noise]).numpy(), expected, rtol=1e-4)
    smooth = torch.ones(2, 1, 16, 16)
    assert float(noise_penalty([smooth]).min()) > 20 * float(noise_penalty([noise]).max())


def test_noise_is_brought_to_mean_0_and_mean_square_1(generator: torch.Generator) -> None:
    white = normalised(3 + 5 * torch.randn(2, 1, 8, 8, generator=generator))
    torch.testing.assert_close(white.mean(dim=(1, 2, 3)), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(white.square().mean(dim=(1, 2, 3)), torch.ones(2))


def test_noise_descended_with_the_code_comes_nearer_and_is_returned(stylegan: StyleGANModel, images: ImageSet) -> None:
    wanted = ImageSet("random", torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)))
    budget = Budget(steps=40, learning_rate=0.1)
    still, moved = (invert(stylegan, wanted, start="mean", budget=budget, noise_weight=weight) for weight in (None, 1e-3))
    assert still.noises == ()
    assert bool((moved.errors < still.errors).all())
    drawn = noise_inputs(stylegan).draw(moved.codes, moved.noises).detach()
    torch.testing.assert_close((drawn - wanted.tensor()).square().flatten(1).mean(dim=1).double(), moved.errors)
    with pytest.raises(CapabilityError, match="planted has no noise inputs"):
        invert(planted(), images, noise_weight=1.0)


# What it refuses


@pytest.mark.parametrize(
    ("decode", "error", "words"),
    [
        (lambda codes: 2 * draw(codes) - 1, ImageFormatError, r"draws values from -.*needs images in \[0, 1\]"),
        (lambda codes: draw(codes * 0), IllPosedError, "one and the same image whatever the code"),
        (lambda codes: draw(codes) * torch.nan, NonFiniteError, "draws NaN or infinity"),
        (lambda codes: draw(codes)[:, :, :2], ImageFormatError, "shape 1x4x5, and draws 1x2x5"),
    ],
)
def test_a_generator_that_cannot_be_inverted_is_told_why(
    decode: Callable[[Tensor], Tensor], error: type[Exception], words: str, images: ImageSet
) -> None:
    with pytest.raises(error, match=words):
        invert(planted(decode), images)


def test_settings_that_make_no_sense_are_refused(images: ImageSet, codes: Tensor) -> None:
    with pytest.raises(UnknownNameError, match="nois"):
        invert(planted(), images, start="nois")
    with pytest.raises(CapabilityError, match="Starting from a recoder needs one: train it"):
        invert(planted(), images, start="recoder")
    with pytest.raises(SettingError, match="needs a start"):
        invert(planted(), images, start=())
    with pytest.raises(SettingError, match="at least 1 start, got 0"):
        invert(planted(), images, starts=0)
    with pytest.raises(SettingError, match="weight of the prior"):
        invert(planted(), images, prior_weight=-1.0)
    with pytest.raises(CapabilityError, match="planted does not encode"):
        invert(planted(), images, recoder=planted())  # type: ignore[arg-type]
    other = CallableModel(name="wide", image_shape=SHAPE, latent_shape=(4,), encode_with=lambda images: images)
    with pytest.raises(CodeShapeError, match="wide gives codes of shape 4, and planted takes 3"):
        invert(planted(), images, recoder=other)


def test_images_of_another_kind_are_refused_with_the_cure(images: ImageSet, stylegan: StyleGANModel) -> None:
    with pytest.raises(ImageFormatError, match="takes colour images and these are grey"):
        invert(stylegan, ImageSet("grey", torch.zeros(1, 1, 16, 16)))
    with pytest.raises(ImageFormatError, match=r"--resize 16.*cut first what the generator's training images showed"):
        invert(stylegan, ImageSet("large", torch.zeros(1, 3, 32, 32)))


def test_a_recoder_of_another_generator_is_refused(stylegan: StyleGANModel) -> None:
    images = ImageSet("some", torch.zeros(1, 3, 16, 16))
    recoder = Recoder(stylegan)
    found = invert(with_recoder(stylegan, recoder), images, budget=Budget(steps=0), start=("recoder", "mean"))
    assert found.start_names == ("recoder", "mean")
    torch.testing.assert_close(found.start_errors[0], invert(stylegan, images, budget=Budget(steps=0), recoder=recoder).errors)
    with pytest.raises(CapabilityError, match="codes the images of StyleGAN2 w, with other weights"):
        invert(stylegan.in_space("z"), images, recoder=recoder)


# Nearest of many draws


def test_the_nearest_draw_is_scipys_nearest(images: ImageSet) -> None:
    model = planted()
    found = nearest_codes(model, images, seed=3)
    pool = model.sample_codes(2000, seeded(3, "nearest draws"))
    apart = distance.cdist(images.tensor().flatten(1).double().numpy(), draw(pool).flatten(1).double().numpy(), "sqeuclidean")
    reached = (draw(found) - images.tensor()).double().square().flatten(1).sum(dim=1)
    np.testing.assert_allclose(reached.numpy(), apart.min(axis=1), rtol=1e-4)


def test_a_draw_that_gives_no_number_is_nearest_to_nothing() -> None:
    """Not even to black, which NaN would be if it counted as 0."""
    model = planted(lambda codes: torch.where(codes[:, :1, None, None] > 0, torch.nan, 0.9 + 0.1 * draw(codes)))
    found = nearest_codes(model, ImageSet("black", torch.zeros(3, *SHAPE)), seed=0)
    assert bool((found[:, 0] <= 0).all())


def test_the_nearest_draw_of_an_image_does_not_depend_on_its_company(images: ImageSet) -> None:
    together = nearest_codes(planted(), images, seed=3)
    for row in range(len(images)):
        assert torch.equal(nearest_codes(planted(), images.slice(row, row + 1), seed=3)[0], together[row])
    assert invert(planted(), images, start="nearest", budget=Budget(steps=0)).start_names == ("nearest",)


def test_of_large_images_fewer_are_drawn(monkeypatch: pytest.MonkeyPatch, images: ImageSet) -> None:
    monkeypatch.setattr("latlas.inversion.invert._MOST_VALUES", 20 * 7)
    asked: list[int] = []

    def sample(n: int, chance: torch.Generator) -> Tensor:
        asked.append(n)
        return torch.randn(n, LATENT, generator=chance)

    nearest_codes(planted(sample_with=sample), images, seed=0)
    assert asked == [7]
