"""Descent: it finds what least squares finds, and what an image gets depends on that image alone."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import (
    CapabilityError,
    CodeShapeError,
    ImageFormatError,
    NonFiniteError,
    SettingError,
    UnknownNameError,
)
from latlas.data.images import ImageSet
from latlas.inversion.descent import BUDGETS, Budget, Inversion, descend, named_budget
from latlas.inversion.prior import code_prior
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE

SHAPE, LATENT, PIXELS = (1, 4, 5), 3, 20


def mixing() -> Tensor:
    return 0.15 * torch.randn(LATENT, PIXELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def linear(codes: Tensor) -> Tensor:
    return (0.5 + codes.flatten(1) @ mixing().to(codes.dtype)).unflatten(1, SHAPE)


def curved(codes: Tensor) -> Tensor:
    """Not linear, not monotone: where a descent ends depends on its start."""
    return (0.5 + 0.5 * torch.sin(3 * codes.flatten(1) @ mixing().to(codes.dtype))).unflatten(1, SHAPE)


def model(decode_with: Callable[[Tensor], Tensor] = linear, *, latent_shape: tuple[int, ...] = (LATENT,)) -> CallableModel:
    return CallableModel(name="planted", image_shape=SHAPE, latent_shape=latent_shape, decode_with=decode_with)


@pytest.fixture
def images(generator: torch.Generator) -> ImageSet:
    """Nine images, of which none lies in the range of a decoder of three variables."""
    return ImageSet("noise", torch.rand(9, *SHAPE, generator=generator), names=tuple(f"{i}.png" for i in range(9)))


def starts(count: int = 1, n: int = 9, *, latent: tuple[int, ...] = (LATENT,)) -> list[Tensor]:
    """In float64, so that rounding does not hide a difference between two descents."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(n, *latent, generator=generator, dtype=torch.float64) for _ in range(count)]


def error_of(codes: Tensor, images: ImageSet, decode: Callable[[Tensor], Tensor] = linear) -> np.ndarray:
    difference = decode(codes).numpy().astype(np.float64) - images.tensor().double().numpy()
    return np.square(difference).reshape(len(codes), -1).mean(axis=1)


# What it finds


@pytest.mark.parametrize("latent", [(LATENT,), (LATENT, 1, 1)], ids=["vector", "spatial"])
def test_a_linear_decoder_is_inverted_to_least_squares(latent: tuple[int, ...], images: ImageSet) -> None:
    """By NumPy. 1e-6: what 1,000 steps of Adam with a rate that falls to 0 leave of codes of size 1."""
    target = images.tensor().double().flatten(1).numpy() - 0.5
    solution, residual, _, _ = np.linalg.lstsq(mixing().numpy().T, target.T, rcond=None)
    found = descend(model(latent_shape=latent), images, starts(latent=latent), budget=Budget(steps=1000))
    np.testing.assert_allclose(found.codes.flatten(1).numpy(), solution.T, atol=1e-6)
    np.testing.assert_allclose(found.errors.numpy(), residual / PIXELS, rtol=1e-9)


def test_images_in_range_are_brought_back_to_their_codes(generator: torch.Generator) -> None:
    true = 0.5 * torch.randn(6, LATENT, generator=generator)
    images = ImageSet("own", linear(true))
    found = descend(model(), images, [torch.zeros(6, LATENT)], budget=Budget(steps=500))
    torch.testing.assert_close(found.codes, true, rtol=0, atol=1e-3)  # float32, and a flat minimum
    assert float(found.errors.max()) < 1e-8


@pytest.mark.parametrize("decode", [linear, curved])
def test_the_errors_are_those_of_decoding_the_codes(decode: Callable[[Tensor], Tensor], images: ImageSet) -> None:
    found = descend(model(decode), images, starts(2), budget=Budget(steps=37))
    np.testing.assert_allclose(found.errors.numpy(), error_of(found.codes, images, decode), rtol=1e-12)


def test_no_steps_return_the_start_and_its_error(images: ImageSet) -> None:
    (start,) = starts()
    found = descend(model(), images, [start], budget=Budget(steps=0))
    assert found.codes.equal(start)
    np.testing.assert_allclose(found.errors.numpy(), error_of(start, images), rtol=1e-12)
    assert found.curves.shape == (1, 1)


def test_the_best_code_met_is_kept_even_if_the_descent_leaves_it(images: ImageSet) -> None:
    """A rate of 3 overshoots at once and never comes back. At the solution itself gradients are rounding, and steps tell nothing."""
    target = images.tensor().double().flatten(1) - 0.5
    near = torch.linalg.lstsq(mixing().T, target.T).solution.T + 0.01
    met: list[np.ndarray] = []

    def watched(codes: Tensor) -> Tensor:
        met.append(error_of(codes.detach(), images))
        return linear(codes)

    found = descend(model(watched), images, [near], budget=Budget(steps=5, learning_rate=3.0))
    assert (np.stack(met[1:]) > 1.1 * met[0]).all()
    assert found.codes.equal(near)


def test_the_start_is_left_as_it_was_and_the_decoder_gets_no_gradient(images: ImageSet) -> None:
    torch.manual_seed(0)
    vae = VAE(Dense(widths=(8,), latent=LATENT), SHAPE)
    start = torch.zeros(9, LATENT)
    found = descend(vae, images, [start], budget=Budget(steps=3))
    assert start.equal(torch.zeros(9, LATENT))
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert [found.codes.requires_grad, found.errors.requires_grad] == [False, False]
    assert float(found.codes.abs().max()) > 0


# Starts


def test_another_start_never_makes_it_worse(images: ImageSet) -> None:
    all_starts = starts(4)
    budget = Budget(steps=40)
    alone = torch.stack([descend(model(curved), images, [start], budget=budget).errors for start in all_starts])
    for count in range(1, 5):
        found = descend(model(curved), images, all_starts[:count], budget=budget)
        torch.testing.assert_close(found.start_errors, alone[:count], rtol=1e-12, atol=0)
        torch.testing.assert_close(found.errors, alone[:count].amin(dim=0), rtol=1e-12, atol=0)
        spread = alone[:count].amax(dim=0) - alone[:count].amin(dim=0)
        torch.testing.assert_close(found.disagreement, spread, rtol=1e-9, atol=1e-15)
    winners = set(alone.argmin(dim=0).tolist())
    assert len(winners) > 1  # or the codes might all have come from one start unnoticed
    np.testing.assert_allclose(found.errors.numpy(), error_of(found.codes, images, curved), rtol=1e-12)


# Company


def same(first: Inversion, second: Inversion, rows: slice) -> None:
    torch.testing.assert_close(first.codes, second.codes[rows], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(first.errors, second.errors[rows], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("patience", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("decode", [linear, curved])
def test_an_image_alone_gets_what_it_gets_in_company(
    decode: Callable[[Tensor], Tensor], patience: float, images: ImageSet
) -> None:
    """Else its error could not be ranked among those of a calibration, which were found in other company."""
    (start,) = starts()
    budget = Budget(steps=150, patience=patience)
    together = descend(model(decode), images, [start], budget=budget)
    for i in range(9):
        alone = descend(model(decode), images.slice(i, i + 1), [start[i : i + 1]], budget=budget)
        same(alone, together, slice(i, i + 1))


@pytest.mark.parametrize("patience", [0.0, 1e-3])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_the_size_of_a_batch_changes_nothing(batch: int, patience: float, images: ImageSet) -> None:
    whole = descend(model(curved), images, starts(2), budget=Budget(steps=60, patience=patience, batch=9))
    parts = descend(model(curved), images, starts(2), budget=Budget(steps=60, patience=patience, batch=batch))
    same(parts, whole, slice(None))
    torch.testing.assert_close(parts.curves, whole.curves, rtol=1e-9, atol=1e-15)


# Curves and stopping


@pytest.mark.parametrize("patience", [0.0, 1e-3])
def test_curves_fall_from_the_starts_error_to_the_ends(patience: float, images: ImageSet) -> None:
    found = descend(model(curved), images, starts(2), budget=Budget(steps=60, patience=patience, batch=4))
    assert found.curves.shape == (2, 61)
    assert bool((found.curves.diff(dim=1) <= 0).all())
    for start, curve, errors in zip(starts(2), found.curves, found.start_errors, strict=True):
        assert float(curve[0]) == pytest.approx(error_of(start, images, curved).mean(), rel=1e-12)
        assert float(curve[-1]) == pytest.approx(float(errors.mean()), rel=1e-12)
        assert float(curve[-1]) < float(curve[0])


def count_decodes(images: ImageSet, start: Tensor, budget: Budget) -> tuple[int, Inversion]:
    calls = []

    def counting(codes: Tensor) -> Tensor:
        calls.append(len(codes))
        return linear(codes)

    found = descend(model(counting), images, [start], budget=budget)
    return len(calls), found


def solved(images: ImageSet) -> Tensor:
    return torch.linalg.lstsq(mixing().T, images.tensor().double().flatten(1).T - 0.5).solution.T


def test_patience_ends_a_descent_that_gets_nowhere(images: ImageSet) -> None:
    """From the solution no step helps: the first comparison, after ten steps, ends it."""
    calls, found = count_decodes(images, solved(images), Budget(steps=100, patience=1e-4))
    assert calls == 11
    np.testing.assert_allclose(found.curves.numpy(), float(found.curves[0, 0]), rtol=1e-12)  # held to its full length
    assert count_decodes(images, solved(images), Budget(steps=100, patience=0.0))[0] == 101


def test_no_image_is_given_up_while_the_rate_still_rises(images: ImageSet) -> None:
    """From the solution no step helps, and yet the first comparison that may end it is at the end of the warm-up."""
    calls, _ = count_decodes(images, solved(images), Budget(steps=100, patience=1e-4, warmup=0.5))
    assert calls == 51


def test_one_image_that_gets_nowhere_does_not_end_the_others(images: ImageSet) -> None:
    start = solved(images)
    start[4:] = 3.0
    calls, found = count_decodes(images, start, Budget(steps=100, patience=1e-4))
    assert calls > 50
    torch.testing.assert_close(found.codes[:4], start[:4], rtol=0, atol=1e-9)
    assert (found.errors[4:].numpy() < 0.5 * error_of(start, images)[4:]).all()


def test_a_larger_budget_never_ends_higher_on_a_linear_decoder(images: ImageSet) -> None:
    ends = [float(descend(model(), images, starts(), budget=Budget(steps=steps)).errors.mean()) for steps in (0, 10, 50, 400)]
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] < 0.95 * ends[0]


def test_progress_is_told_in_images_over_all_starts(images: ImageSet) -> None:
    told: list[tuple[str, int, int | None]] = []
    descend(
        model(),
        images,
        starts(2),
        budget=Budget(steps=1, batch=4),
        progress=lambda task, done, total, note="": told.append((task, done, total)),
    )
    assert told == [("inverting noise", done, 18) for done in (4, 8, 9, 13, 17, 18)]


# What can go wrong


@pytest.mark.parametrize("steps", [0, 30])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_start_that_gives_no_number_loses_and_costs_no_other_image(steps: int, value: float, images: ImageSet) -> None:
    """The seventh image, in the second batch, from the second start."""
    first, second = starts(2)
    second[6] = 50.0

    def holed(codes: Tensor) -> Tensor:
        return torch.where((codes > 40).any(dim=1)[:, None, None, None], value, linear(codes))

    budget = Budget(steps=steps, batch=4)
    found = descend(model(holed), images, [first, second], budget=budget)
    whole = descend(model(), images, [first, second], budget=budget)
    assert found.broken.nonzero().tolist() == [[1, 6]]
    assert found.start_errors[1, 6] == math.inf
    assert found.errors[6] == whole.start_errors[0, 6]
    assert found.unfinished == ()  # the first start served
    others = [0, 1, 2, 3, 4, 5, 7, 8]
    torch.testing.assert_close(found.codes[others], whole.codes[others], rtol=1e-9, atol=1e-12)
    assert bool(found.curves.isfinite().all())


@pytest.mark.parametrize("where", ["image", "gradient"])
def test_an_image_that_leaves_the_numbers_is_held_at_its_best_code_and_named(where: str, images: ImageSet) -> None:
    """Beyond a bound on the first variable, which only some descents cross, there is nothing but NaN."""
    highest = torch.full((9,), -math.inf, dtype=torch.float64)
    limit = float(solved(images)[:, 0].sort().values[-2:].mean())

    def watched(codes: Tensor) -> Tensor:
        highest.copy_(torch.maximum(highest, codes[:, 0].detach()))
        return linear(codes)

    def holed(codes: Tensor) -> Tensor:
        first = codes[:, 0, None, None, None]
        if where == "image":
            return torch.where(first > limit, torch.nan, linear(codes))
        return linear(codes) + torch.where(first > limit, first - first, 0).abs().sqrt()  # adds 0, with no finite slope

    start = torch.full((9, LATENT), float(solved(images).min()) - 0.2, dtype=torch.float64)
    whole = descend(model(watched), images, [start])
    crossing = [row for row in range(9) if highest[row] > limit]
    others = [row for row in range(9) if row not in crossing]
    assert 0 < len(crossing) < 5
    found = descend(model(holed), images, [start])
    assert found.unfinished == tuple(f"{row}.png" for row in crossing)
    assert found.broken[0].nonzero().flatten().tolist() == crossing
    before = error_of(start, images)
    for row in crossing:
        assert float(whole.errors[row]) <= float(found.errors[row]) < 0.9 * float(before[row])
    np.testing.assert_allclose(found.errors.numpy(), error_of(found.codes, images), rtol=1e-12)
    torch.testing.assert_close(found.codes[others], whole.codes[others], rtol=1e-9, atol=1e-12)


def test_if_no_image_gives_a_number_there_is_no_result(images: ImageSet) -> None:
    with pytest.raises(
        NonFiniteError, match=r"planted gave NaN or infinity for every image of noise .* learning rate than 0\.05"
    ):
        descend(model(lambda codes: linear(codes) * torch.nan), images, starts(2))


def test_a_decoder_without_gradient_is_refused(images: ImageSet) -> None:
    with pytest.raises(CapabilityError, match="images of planted have no gradient"):
        descend(model(lambda codes: linear(codes).detach()), images, starts())


# Steps, prior, batches of large images


def test_the_steps_are_those_of_torchs_adam(images: ImageSet) -> None:
    """Twelve steps far from the solution, each of which lowers the error: the best code is the last."""
    budget = Budget(steps=12)
    codes = torch.full((9, LATENT), 4.0, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([codes], lr=1.0, betas=(0.9, 0.99))
    for step in range(12):
        adam.zero_grad()
        (linear(codes) - images.tensor()).square().flatten(1).mean(dim=1).sum().backward()
        adam.param_groups[0]["lr"] = budget.rate(step)
        adam.step()
    found = descend(model(), images, [torch.full((9, LATENT), 4.0, dtype=torch.float64)], budget=budget)
    torch.testing.assert_close(found.codes, codes.detach(), rtol=1e-10, atol=0)


def test_the_rate_rises_for_the_warm_up_and_falls_as_a_cosine() -> None:
    budget = Budget(steps=100, learning_rate=2.0, warmup=0.1)
    rates = np.array([budget.rate(step) for step in range(100)])
    cosine = 1 + np.cos(np.pi * np.arange(100) / 100)
    np.testing.assert_allclose(rates[9:], cosine[9:], rtol=1e-12)
    np.testing.assert_allclose(rates[:9], cosine[:9] * np.arange(1, 10) / 10, rtol=1e-12)


def test_a_prior_leads_to_the_ridge_solution(images: ImageSet) -> None:
    """By NumPy's solve, for codes that are correlated and not centred."""
    shape = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [0.0, 0.3, 2.0]], dtype=torch.float64)
    drawn = CallableModel(
        name="planted",
        image_shape=SHAPE,
        latent_shape=(LATENT,),
        decode_with=linear,
        sample_with=lambda n, generator: 1 + torch.randn(n, LATENT, generator=generator, dtype=torch.float64) @ shape.T,
    )
    prior, weight = code_prior(drawn, seed=3), 0.02
    assert prior.whole
    precision = (prior.whitening @ prior.whitening.T).numpy() * weight / LATENT
    a, target = mixing().numpy(), images.tensor().double().flatten(1).numpy() - 0.5
    right = a @ target.T / PIXELS + (precision @ prior.mean.numpy())[:, None]
    expected = np.linalg.solve(a @ a.T / PIXELS + precision, right).T
    found = descend(drawn, images, starts(), budget=Budget(steps=1000), prior=prior, prior_weight=weight)
    np.testing.assert_allclose(found.codes.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(found.errors.numpy(), error_of(found.codes, images), rtol=1e-12)  # of the images alone


def test_a_start_does_not_win_by_leaving_ordinary_codes() -> None:
    """Of the very code of each image and the code that is ordinary, the sum of error and cost decides."""
    exact, ordinary = starts()[0] * 0.3, torch.zeros(9, LATENT, dtype=torch.float64)
    own = ImageSet("its own", linear(exact).float())
    prior = code_prior(model(), seed=0)
    errors = np.stack([error_of(codes, own) for codes in (exact, ordinary)])
    distances = np.stack([prior.distance(codes).numpy() for codes in (exact, ordinary)])
    weight = float(np.median((errors[1] - errors[0]) / (distances[0] - distances[1])))  # where half of the images change sides
    found = descend(model(), own, [exact, ordinary], budget=Budget(steps=0), prior=prior, prior_weight=0.999 * weight)
    costs = errors + 0.999 * weight * distances
    assert found.winners.tolist() == costs.argmin(axis=0).tolist()
    assert set(found.winners.tolist()) == {0, 1}
    np.testing.assert_allclose(found.errors.numpy(), errors[found.winners, range(9)], rtol=1e-9)
    assert descend(model(), own, [exact, ordinary], budget=Budget(steps=0)).winners.tolist() == [0] * 9


def test_curves_are_numpys_means_over_the_images_that_have_a_number() -> None:
    curves = torch.tensor([[[4.0, 2.0], [torch.inf, 6.0], [torch.inf, torch.inf]]], dtype=torch.float64)
    some = torch.zeros(1, 3, dtype=torch.float64)
    found = Inversion(
        codes=torch.zeros(3, LATENT),
        errors=some[0],
        start_errors=some,
        start_names=("one",),
        winners=torch.zeros(3, dtype=torch.int64),
        image_curves=curves,
        broken=some.bool(),
        names=("a", "b", "c"),
    )
    expected = np.nanmean(np.where(np.isfinite(curves.numpy()), curves.numpy(), np.nan), axis=1)
    np.testing.assert_allclose(found.curves.numpy(), expected)


@pytest.mark.parametrize("weights", [{"prior_weight": -1.0}, {"prior_weight": math.nan}, {"prior_weight": 0.1}])
def test_a_weight_that_cannot_be_used_is_refused(weights: dict[str, Any], images: ImageSet) -> None:
    with pytest.raises(SettingError, match=r"weight of the prior must be 0 or more|A prior weight needs a prior"):
        descend(model(), images, starts(), **weights)


def test_budgets_have_names() -> None:
    assert [BUDGETS[name].steps for name in ("quick", "default", "thorough")] == [60, Budget().steps, 1000]
    assert named_budget("thorough", steps=3).steps == 3
    with pytest.raises(UnknownNameError, match=r"thorogh.*thorough"):
        named_budget("thorogh")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "at least one set of starting codes"),
        ([torch.zeros(8, LATENT)], "one code an image: got 8 codes for 9 images"),
        ([torch.zeros(9, LATENT), torch.zeros(10, LATENT)], "got 10 codes for 9 images"),
        ([torch.zeros(9, LATENT + 1)], "planted takes codes of shape 3, got 4"),
    ],
)
def test_starts_that_do_not_fit_are_refused_before_any_work(given: list[Tensor], words: str, images: ImageSet) -> None:
    with pytest.raises(CodeShapeError, match=words):
        descend(model(lambda codes: pytest.fail("was decoded")), images, given)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ImageFormatError, match="planted takes images of 1x4x5"):
        descend(model(), ImageSet("wide", torch.zeros(9, 1, 4, 6)), starts())


@pytest.mark.parametrize(
    "settings",
    [{"steps": -1}, {"batch": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"patience": -1e-9}],
)
def test_a_budget_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="steps >= 0, batch >= 1, learning rate > 0, patience >= 0, got Budget"):
        Budget(**settings)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_descent_has_gradients_where_its_caller_switched_them_off(mode: Callable[[], Any], images: ImageSet) -> None:
    (start,) = starts()
    expected = descend(model(), images, [start], budget=Budget(steps=20))
    with mode():
        made_there = ImageSet(images.name, images.storage.clone())
        found = descend(model(), made_there, [start.clone()], budget=Budget(steps=20))
        assert not torch.is_grad_enabled()
    assert found.codes.equal(expected.codes)
    assert found.errors.equal(expected.errors)
    assert float(found.errors.mean()) < float(found.image_curves[0, :, 0].mean())


def test_an_inversion_is_one_line_where_a_notebook_shows_it(images: ImageSet) -> None:
    found = descend(model(), images, starts(), start_names=["zero"], budget=Budget(steps=0))
    assert repr(found) == (
        f"<Inversion of {len(images)} images from zero: mean squared error {float(found.errors.mean()):.4g}; .codes, .errors, .curves>"
    )
