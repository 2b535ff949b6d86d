"""What may stand in the place of the KL term, and training without sampling: by torch's own KL, and by what trainings record."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from latlas.base.errors import SettingError, UnknownNameError
from latlas.base.seeds import derived_seed
from latlas.data.images import ImageSet
from latlas.models.architectures.dense import Dense
from latlas.models.protocols import Posterior
from latlas.models.vae import VAE
from latlas.training.objectives import BALANCES, Objective
from latlas.training.runs import train_vae

WITHOUT_KL_OF_ITS_OWN = tuple(balance for balance in BALANCES if balance not in ("free-bits", "warm-up"))


def parts(generator: torch.Generator, latent: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, Posterior]:
    logits, images = torch.randn(6, 1, 5, 4, generator=generator), torch.rand(6, 1, 5, 4, generator=generator)
    return logits, images, Posterior(torch.randn(6, *latent, generator=generator), torch.randn(6, *latent, generator=generator))


@pytest.mark.parametrize("latent", [(4,), (2, 3, 3)], ids=["vector", "spatial"])
@pytest.mark.parametrize("balance", WITHOUT_KL_OF_ITS_OWN)
def test_the_penalty_is_the_kl_between_unit_gaussians_and_nothing_asks_for_a_variance(
    balance: str, latent: tuple[int, ...], generator: torch.Generator
) -> None:
    """KL(N(mean, 1) || N(0, 1)) = mean^2 / 2."""
    logits, images, posterior = parts(generator, latent)
    terms = Objective(balance=balance, latent_term="quadratic", kl_weight=3.0).build()(logits, images, posterior)
    unit = torch.ones_like(posterior.mean)
    expected = kl_divergence(Normal(posterior.mean, unit), Normal(torch.zeros_like(unit), unit)).flatten(1).sum(1).mean()
    assert float((terms.loss - terms.reconstruction_nats).detach()) == pytest.approx(3.0 * float(expected), rel=1e-4)


@pytest.mark.parametrize("balance", WITHOUT_KL_OF_ITS_OWN)
def test_without_a_latent_term_the_loss_is_the_reconstruction(balance: str, generator: torch.Generator) -> None:
    terms = Objective(balance=balance, latent_term="none").build()(*parts(generator, (4,)))
    assert float(terms.loss.detach()) == pytest.approx(float(terms.reconstruction_nats))


@pytest.mark.parametrize("term", ["quadratic", "none"])
def test_the_kl_is_told_whatever_the_loss_holds(term: Any, generator: torch.Generator) -> None:
    logits, images, posterior = parts(generator, (4,))
    told = Objective(latent_term=term).build()(logits, images, posterior).kl_nats
    usual = Objective().build()(logits, images, posterior).kl_nats
    assert float(told) == float(usual) > 0


def train(blobs: ImageSet, out: Path | None = None, **objective: Any) -> VAE:
    aim = Objective(balance="fixed", likelihood="bernoulli", **objective)
    return train_vae(blobs, Dense(widths=(16,), latent=3), objective=aim, epochs=2, seed=4, device="cpu", out=out).model


def test_without_sampling_the_variance_learns_nothing_unless_the_loss_asks_for_it(blobs: ImageSet) -> None:
    """Decoding means, the quadratic penalty gives the variance's half of the last layer no gradient: it stays as it began."""
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(4, "weights"))
        start = VAE(Dense(widths=(16,), latent=3), blobs.image_shape).encoder.head.weight.detach()  # type: ignore[union-attr]
    means, variances = slice(0, 3), slice(3, 6)
    for sampling, moved in ((False, False), (True, True)):
        head = train(blobs, latent_term="quadratic", sampling=sampling).encoder.head.weight.detach()  # type: ignore[union-attr]
        assert not head[means].equal(start[means])
        assert head[variances].equal(start[variances]) is not moved


def test_without_the_kl_sampled_posteriors_shrink_towards_points(blobs: ImageSet) -> None:
    """As the post says: where nothing holds it, the variance goes to 0."""

    def sizes(term: Any) -> torch.Tensor:
        found = train_vae(
            blobs,
            Dense(widths=(16,), latent=3),
            objective=Objective(balance="fixed", likelihood="bernoulli", latent_term=term),
            epochs=15,
            learning_rate=5e-3,
            batch_size=32,
            device="cpu",
        ).history[-1]["mean_posterior_variance"]
        return torch.tensor(found)

    assert bool((sizes("none") < 0.3 * sizes("kl")).all())


def test_small_means_without_a_kl_are_not_called_a_collapse(blobs: ImageSet) -> None:
    aim = Objective(balance="fixed", likelihood="bernoulli", latent_term="quadratic", kl_weight=1e6)
    run = train_vae(blobs, Dense(widths=(16,), latent=3), objective=aim, epochs=3, device="cpu")
    assert run.history[-1]["active"] == 0
    assert run.warnings == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"latent_term": "none", "kl_weight": 2.0}, "leave it out"),
        ({"latent_term": "none", "balance": "warm-up"}, "--balance fixed"),
        ({"latent_term": "quadratic", "balance": "free-bits"}, "--latent-term kl"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        Objective(**settings)


def test_an_unknown_latent_term_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="quadratic"):
        Objective(latent_term="quadratc")


def test_what_departs_from_the_elbo_is_recorded_and_the_elbo_as_it_always_was(blobs: ImageSet, tmp_path: Path) -> None:
    """An unfinished training goes on only where its settings are the same: those of before must not have changed."""
    assert set(Objective().to_json()) == {"balance", "likelihood", "kl_weight", "sigma", "warm_up_steps", "free_nats"}
    model = train(blobs, tmp_path / "model", latent_term="quadratic", sampling=False)
    recorded = VAE.from_pretrained(tmp_path / "model").provenance
    assert model.provenance is not None
    assert recorded is not None
    assert recorded.settings["objective"]["latent_term"] == "quadratic"
    assert recorded.settings["objective"]["sampling"] is False
