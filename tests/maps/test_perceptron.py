"""The perceptron finds what is not linear, and nothing where nothing is."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError
from latlas.base.seeds import generator as seeded
from latlas.maps import perceptron
from latlas.maps.fit import fit_map
from latlas.maps.perceptron import PerceptronSettings, fit_perceptron

SMALL = PerceptronSettings(hidden=64, epochs=60)


def source(generator: torch.Generator, n: int = 1200) -> Tensor:
    return torch.randn(n, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 30.0, 0.02]) + 5.0


def bent(codes: Tensor) -> Tensor:
    """A target that no affine map reaches: a product and a square of standardised variables."""
    x = (codes - 5.0) / torch.tensor([1.0, 30.0, 0.02])
    return torch.stack([x[:, 0] + x[:, 1] * x[:, 2], x[:, 1].square()], dim=1)


def error(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted) / wanted.std(dim=0)).square().mean())


def test_what_is_bent_is_found_on_fresh_codes(generator: torch.Generator) -> None:
    train, fresh = source(generator), source(generator)
    linear = error(fit_map(train, bent(train)).apply(fresh), bent(fresh))
    found = fit_perceptron(train, bent(train), settings=SMALL)
    assert linear > 0.5
    assert error(found.apply(fresh), bent(fresh)) < 0.1
    assert 0 < found.evidence["held_out_over_affine"] < 0.1


def test_where_the_truth_is_affine_the_affine_map_is_left_as_it_is(generator: torch.Generator) -> None:
    """Noise beyond it is nothing to be learnt: the error on fresh codes stays within a few per cent of the noise."""
    weight = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    train, fresh = source(generator), source(generator)
    noise = torch.randn(1200, 2, generator=generator, dtype=torch.float64)
    found = fit_perceptron(train, train @ weight + noise, settings=SMALL)
    assert float((found.apply(fresh) - fresh @ weight).square().mean()) < 0.05
    assert found.evidence["held_out_over_affine"] > 0.9


def test_the_network_starts_as_zero_and_the_best_state_is_kept(generator: torch.Generator) -> None:
    """A learning rate that only does harm leaves the affine map of the same pairs."""
    train = source(generator, 200)
    wild = PerceptronSettings(hidden=8, epochs=3, learning_rate=50.0)
    found = fit_perceptron(train, bent(train), settings=wild)
    assert found.evidence["best_epoch"] == 0
    torch.testing.assert_close(found.apply(train), found.base.apply(train))
    assert found.evidence["held_out_over_affine"] == 1.0


def test_the_yardstick_is_the_squared_error_of_codes_on_pairs_that_nothing_was_fitted_to(generator: torch.Generator) -> None:
    """Which pairs are held out follows from the seed; the affine part is scikit-learn's ridge on the others."""
    x = source(generator, 300)
    y = bent(x) * torch.tensor([1.0, 40.0]) + 3
    found = fit_perceptron(x, y, settings=PerceptronSettings(hidden=64, epochs=40, batch_size=32), seed=4)
    order = torch.randperm(300, generator=seeded(4, "perceptron", "held out"))
    held, rest = order[:30], order[30:]
    assert (found.evidence["held_out"], found.evidence["pairs"]) == (30, 300)
    affine = Ridge(alpha=found.base.evidence["ridge"], solver="svd").fit(x[rest].numpy(), y[rest].numpy())
    np.testing.assert_allclose(found.base.weight.numpy(), affine.coef_.T, rtol=1e-6)
    np.testing.assert_allclose(found.mean.numpy(), x[rest].numpy().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.spread.numpy(), x[rest].numpy().std(axis=0, ddof=1), rtol=1e-12)
    left = np.square(affine.predict(x[held].numpy()) - y[held].numpy()).sum()
    ratio = float((found.apply(x[held]) - y[held]).square().sum()) / float(left)
    assert 0 < ratio < 0.8
    assert found.evidence["held_out_over_affine"] == pytest.approx(ratio, rel=1e-3)


def test_the_pairs_that_decide_when_to_stop_train_nothing(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the network is shown with a gradient, it is none of them."""
    x = source(generator, 200)
    held = torch.randperm(200, generator=seeded(0, "perceptron", "held out"))[:20]
    shown: list[Tensor] = []
    loss = perceptron._loss

    def watched(found: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
        if found.requires_grad:
            shown.append(wanted)
        return loss(found, wanted, weights)

    monkeypatch.setattr(perceptron, "_loss", watched)
    fitted = fit_perceptron(x, bent(x), settings=PerceptronSettings(hidden=8, epochs=3, patience=3))
    left = ((bent(x) - fitted.base.apply(x)) / fitted.scale).float()
    gaps = torch.cdist(left[held], torch.cat(shown)).amin(dim=1)
    assert sum(len(batch) for batch in shown) == 3 * 180
    assert float(gaps.min()) > 1e-6


def test_of_states_that_do_equally_well_the_first_is_kept(generator: torch.Generator) -> None:
    """Steps too small for float32 change no error: the affine map stays, and patience is not renewed."""
    train = source(generator, 200)
    plan = PerceptronSettings(hidden=8, epochs=20, patience=3, learning_rate=1e-30)
    evidence = fit_perceptron(train, bent(train), settings=plan).evidence
    assert (evidence["best_epoch"], evidence["epochs"], evidence["held_out_over_affine"]) == (0, 3, 1.0)


def test_training_stops_once_patience_has_run_out(generator: torch.Generator) -> None:
    train = source(generator, 200)
    plan = PerceptronSettings(hidden=8, epochs=50, patience=4, learning_rate=50.0)
    assert fit_perceptron(train, bent(train), settings=plan).evidence["epochs"] == 4


def test_the_seed_decides_everything_and_leaves_the_global_chance_alone(generator: torch.Generator) -> None:
    train = source(generator, 100)
    plan = PerceptronSettings(hidden=8, epochs=3)
    before = torch.get_rng_state()
    found = [fit_perceptron(train, bent(train), settings=plan, seed=seed).apply(train) for seed in (0, 0, 1)]
    assert torch.get_rng_state().equal(before)
    assert found[0].equal(found[1])
    assert not found[0].equal(found[2])


def test_codes_keep_their_type_and_need_no_gradient(generator: torch.Generator) -> None:
    train = source(generator, 60)
    found = fit_perceptron(train.float(), bent(train).float(), settings=PerceptronSettings(hidden=8, epochs=2))
    moved = found.apply(train.float())
    assert moved.dtype == torch.float32
    assert not moved.requires_grad
    assert not moved.is_inference()
    assert found.apply(train[:0]).shape == (0, 2)


def test_a_constant_variable_does_no_harm(generator: torch.Generator) -> None:
    train = torch.cat([source(generator, 100), torch.full((100, 1), 7.0, dtype=torch.float64)], dim=1)
    target = torch.cat([bent(train[:, :3]), torch.full((100, 1), 2.0, dtype=torch.float64)], dim=1)
    moved = fit_perceptron(train, target, settings=PerceptronSettings(hidden=8, epochs=5)).apply(train)
    torch.testing.assert_close(moved[:, 2], target[:, 2], rtol=1e-6, atol=1e-6)
    assert bool(moved.isfinite().all())


def test_pairs_that_cannot_be_learnt_from_are_refused(generator: torch.Generator) -> None:
    train = source(generator, 40)
    with pytest.raises(IllPosedError, match="at least 20 pairs of codes, got 19"):
        fit_perceptron(train[:19], bent(train[:19]))
    with pytest.raises(CodeShapeError, match="paired codes n x variables"):
        fit_perceptron(train, bent(train)[:39])
    with pytest.raises(CodeShapeError, match="Flatten spatial codes"):
        fit_perceptron(train[:, :, None, None], bent(train))
    with pytest.raises(NonFiniteError):
        fit_perceptron(torch.full((40, 3), torch.nan), bent(train))
    with pytest.raises(CodeShapeError, match="This map takes codes of 3 variables"):
        fit_perceptron(train, bent(train), settings=PerceptronSettings(hidden=4, epochs=1)).apply(train[:, :2])
    for setting in ({"hidden": 0}, {"learning_rate": 0.0}, {"held_out": 1.0}, {"epochs": 0}):
        with pytest.raises(SettingError, match="perceptron"):
            fit_perceptron(train, bent(train), settings=PerceptronSettings(**setting))  # type: ignore[arg-type]


def test_a_target_variable_that_is_linear_has_no_say_in_the_yardstick(generator: torch.Generator) -> None:
    """Beside a bent variable stands one that the affine map gives exactly; it must not hide what the perceptron gains."""
    x = torch.randn(600, 2, generator=generator, dtype=torch.float64)
    bent = (x[:, :1] ** 2 - 1) * 1e-3
    alone = fit_perceptron(x, bent, seed=0).evidence["held_out_over_affine"]
    beside = fit_perceptron(x, torch.cat([bent, torch.full_like(bent, 5.0)], dim=1), seed=0).evidence["held_out_over_affine"]
    assert alone < 0.5
    assert beside < 0.5
