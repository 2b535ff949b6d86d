"""Drawing takes no more memory than the codes drawn, in latent spaces of thousands of variables too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latlas.base.provenance import Provenance
from latlas.encodings.encoding import Encoding
from latlas.samplers.densities import Mixture, fit_gaussian, fit_moments
from latlas.samplers.fit import fit_sampler, load_sampler


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor holds that any operation made."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        made = [len(one.untyped_storage()) // one.element_size() for one in tree_leaves(found) if isinstance(one, Tensor)]
        self.numbers = max([self.numbers, *made])
        return found


def encoding(mean: Tensor) -> Encoding:
    return Encoding(mean=mean, log_variance=None, model="m", images="i", images_hash="h", provenance=Provenance(made_by="test"))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_mixture(components: int, size: int) -> Mixture:
    weights = torch.arange(1.0, components + 1).double()
    return Mixture(
        "mixture",
        weights / weights.sum(),
        normal(components, size, seed=1).double(),
        normal(components, size, size, seed=2).double(),
    )


@pytest.mark.parametrize("components", [1, 3])
def test_a_draw_is_the_mean_of_its_component_and_its_factor_times_the_noise(components: int) -> None:
    """Of the same noise: samples of a seed are what they were when every code had a factor of its own."""
    mixture = a_mixture(components, 6)
    found = mixture.draw(500, torch.Generator().manual_seed(4))
    chance = torch.Generator().manual_seed(4)
    component = torch.multinomial(mixture.weights, 500, replacement=True, generator=chance).numpy()
    noise = torch.randn(500, 6, generator=chance, dtype=torch.float64).numpy()
    expected = mixture.means.numpy()[component] + np.einsum("nij,nj->ni", mixture.factors.numpy()[component], noise)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_a_draw_holds_no_factor_for_every_code() -> None:
    mixture = a_mixture(3, 40)
    with Largest() as held:
        mixture.draw(1000, torch.Generator().manual_seed(0))
    assert held.numbers <= 1000 * 40


def test_moments_of_a_spatial_latent_space_need_no_matrix(tmp_path: Path) -> None:
    """4 x 32 x 32 variables, as a diffusion model's autoencoder has: a covariance would have 16 million numbers."""
    mean = normal(30, 4, 32, 32) * torch.linspace(0.1, 3.0, 4)[:, None, None] + 2.0
    with Largest() as held:
        sampler = fit_sampler("moments", encoding(mean), renormalised=True)
    assert held.numbers <= 10_000 * 4096
    drawn = sampler.sample(4000, torch.Generator().manual_seed(0))
    channels = drawn.transpose(0, 1).flatten(1), mean.transpose(0, 1).flatten(1)
    torch.testing.assert_close(channels[0].mean(dim=1), channels[1].mean(dim=1), rtol=0.01, atol=0.01)
    within = mean.var(dim=0, correction=0).mean(dim=(1, 2))
    torch.testing.assert_close(drawn.var(dim=0).mean(dim=(1, 2)), within, rtol=0.01, atol=0.0)
    sampler.save_pretrained(tmp_path / "sampler")
    again = load_sampler(tmp_path / "sampler").sample(5, torch.Generator().manual_seed(1))
    assert torch.equal(again, sampler.sample(5, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("size", [3, 1024, 1025])
def test_a_diagonal_draws_the_same_as_the_matrix_of_it(size: int) -> None:
    density = fit_moments(normal(20, size))
    assert density.factors.ndim == (3 if size <= 1024 else 2)  # those of few variables are kept as they always were
    factor = density.factors[0] if size <= 1024 else density.factors[0].diag()
    full = Mixture("moments", density.weights, density.means, factor[None])
    found = [one.draw(7, torch.Generator().manual_seed(2)) for one in (density, full)]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_a_gaussian_of_the_variables_of_a_style_space_is_drawn() -> None:
    """512 of them, and 10,000 codes to measure by: with a factor for each code that would be 21 GB."""
    codes = normal(600, 512)
    with Largest() as held:
        sampler = fit_sampler("gaussian", encoding(codes))
    assert held.numbers <= 10_000 * 512
    assert sampler.variance_ratio == pytest.approx(1.0, abs=0.01)
    drawn = fit_gaussian(codes).draw(2000, torch.Generator().manual_seed(0))
    assert float(drawn.var(dim=0).mean()) == pytest.approx(float(codes.var(dim=0, correction=0).mean()), rel=0.01)
