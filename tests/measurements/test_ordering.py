"""Orders of variables: on decoders whose gains, derivatives and posteriors are known, by each measure, fast and exhaustively."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from latlas.base.errors import (
    CapabilityError,
    CodeShapeError,
    IllPosedError,
    ImageFormatError,
    NonFiniteError,
    SettingError,
    UnknownNameError,
)
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.measurements import ordering
from latlas.measurements.elimination import Elimination
from latlas.measurements.gain import growths, reconstruction_gain
from latlas.measurements.jacobians import squared_derivatives
from latlas.measurements.ordering import MEASURES, Ordering, order_variables, rank_agreement
from latlas.measurements.reconstruction import decode_batches
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.autoencoder_kl import AutoencoderKL
from latlas.models.vae import VAE

SHAPE, PIXELS, LATENT, N = (1, 4, 6), 24, 6, 400
STRENGTH = torch.tensor([0.02, 0.05, 0.01, 0.0, 0.03, 0.0291])  # the last ties with the one before
STRONGEST_FIRST = [1, 4, 5, 0, 2, 3]


@pytest.fixture(scope="module")
def mixing() -> Tensor:
    """What each variable draws: orthogonal patterns of the strengths above."""
    patterns, _ = torch.linalg.qr(torch.randn(PIXELS, LATENT, generator=torch.Generator().manual_seed(1)))
    return STRENGTH[:, None] * patterns.T * PIXELS**0.5


@pytest.fixture(scope="module")
def planted(mixing: Tensor) -> CallableModel:
    """Draws linearly, and encodes what it drew exactly, with log-variances that grow with the variable's number."""

    def encode_with(images: Tensor) -> tuple[Tensor, Tensor]:
        back = torch.linalg.pinv(mixing.double())
        means = ((images.flatten(1).double() - 0.5) @ back).float()
        return means, torch.linspace(-4, 0, LATENT).expand(len(images), LATENT) + 0.1 * means.tanh()

    return CallableModel(
        name="planted",
        image_shape=SHAPE,
        latent_shape=(LATENT,),
        encode_with=encode_with,
        decode_with=lambda codes: (0.5 + codes @ mixing.to(codes.dtype)).unflatten(1, SHAPE),
        fingerprint="weights",
    )


@pytest.fixture(scope="module")
def codes() -> Tensor:
    return torch.randn(N, LATENT, generator=torch.Generator().manual_seed(2)).clamp(-2.5, 2.5)


@pytest.fixture(scope="module")
def images(mixing: Tensor, codes: Tensor) -> ImageSet:
    noise = 0.01 * torch.randn(N, PIXELS, generator=torch.Generator().manual_seed(3))
    return ImageSet("own", (0.5 + codes @ mixing + noise).clamp(0, 1).unflatten(1, SHAPE))


# Gain


def test_an_exhaustive_order_is_the_reconstruction_gain(planted: CallableModel, images: ImageSet, codes: Tensor) -> None:
    found = order_variables(planted, images, codes=codes, fast=False, top=2)
    gain = reconstruction_gain(planted, codes, images)
    assert list(found.variables) == gain.order()
    torch.testing.assert_close(found.score, gain.mean, rtol=1e-12, atol=1e-18)
    torch.testing.assert_close(found.standard_error, gain.standard_error, rtol=1e-12, atol=1e-18)
    assert found.decodes == found.exhaustive_decodes == N * (LATENT + 1)
    assert found.seen.tolist() == [N] * LATENT
    assert not found.fast


@pytest.mark.parametrize("top", [1, 4, 5])
def test_a_fast_top_is_the_exhaustive_one(top: int, planted: CallableModel, images: ImageSet, codes: Tensor) -> None:
    full = order_variables(planted, images, codes=codes, fast=False, top=top)
    for seed in range(5):
        found = order_variables(planted, images, codes=codes, top=top, seed=seed)
        assert found.fast
        assert set(found.leading) == set(full.leading)
        assert found.decodes < found.exhaustive_decodes == full.decodes
        assert found.tied[top:] == (None,) * (LATENT - 1 - top)


def test_a_tie_at_the_border_is_decided_as_exhaustively_and_told(
    planted: CallableModel, images: ImageSet, codes: Tensor
) -> None:
    full = order_variables(planted, images, codes=codes, fast=False, top=2)
    found = order_variables(planted, images, codes=codes, top=2, seed=3)
    assert full.border_tied
    assert found.border_tied
    assert {4, 5} in [set(run) for run in full.ties()]
    assert set(found.leading) <= {1, 4, 5}


def test_neighbours_are_tied_where_a_paired_test_does_not_tell_them_apart(
    planted: CallableModel, images: ImageSet, codes: Tensor
) -> None:
    for confidence in (0.5, 0.9, 0.99):
        found = order_variables(planted, images, codes=codes, fast=False, confidence=confidence)
        growth = growths(planted, codes, images, range(LATENT)).numpy()
        for rank, tied in enumerate(found.tied):
            test = ttest_rel(growth[:, found.variables[rank]], growth[:, found.variables[rank + 1]])
            assert tied == (test.pvalue > 1 - confidence)


def test_a_top_that_all_images_decided_is_tied_only_where_a_paired_test_says_so(
    planted: CallableModel, images: ImageSet, codes: Tensor
) -> None:
    """60 images are one round: nothing was settled before they were used up, and the difference is known all the same."""
    few, points = images.slice(0, 60), codes[:60]
    growth = growths(planted, points, few, range(LATENT)).numpy()
    told = set()
    for top in range(1, LATENT):
        found = order_variables(planted, few, codes=points, top=top)
        assert found.fast
        assert int(found.seen.min()) == 60
        test = ttest_rel(growth[:, found.variables[top - 1]], growth[:, found.variables[top]])
        assert found.border_tied == (test.pvalue > 0.05)
        told.add(found.border_tied)
    assert told == {False, True}


@pytest.mark.parametrize("n", [2, 3, 5])
def test_of_few_images_a_tie_is_students_and_not_the_normal_laws(
    n: int, planted: CallableModel, images: ImageSet, codes: Tensor
) -> None:
    few, points = images.slice(0, n), codes[:n]
    growth = growths(planted, points, few, range(LATENT)).numpy()
    for confidence in np.linspace(0.5, 0.995, 34):
        found = order_variables(planted, few, codes=points, fast=False, confidence=float(confidence))
        for rank, tied in enumerate(found.tied):
            test = ttest_rel(growth[:, found.variables[rank]], growth[:, found.variables[rank + 1]])
            assert tied == (test.pvalue > 1 - confidence)


def test_the_top_stands_before_all_others_whatever_rough_scores_say(
    planted: CallableModel, images: ImageSet, codes: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the top a score is of few images, and may look larger than those of the top."""
    growth = torch.rand(10, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    growth += torch.tensor([5.0, 0.0, 0.0, 9.0, 7.0, 0.0])
    decided = Elimination(
        top=(0, 4),
        rows=torch.arange(10),
        growth=growth,
        seen=torch.full((LATENT,), 10),
        settled=True,
        rounds=1,
        decodes=10 * (LATENT + 1),
    )
    monkeypatch.setattr(ordering, "eliminate", lambda *_, **__: decided)
    found = order_variables(planted, images, codes=codes, top=2)
    assert found.leading == (4, 0)
    assert found.variables[2] == 3


def test_the_error_of_a_fast_score_is_its_spread_over_sets(planted: CallableModel, mixing: Tensor) -> None:
    """Sets of images drawn anew, and a sample of each: the stated error covers both."""
    strongest = 1
    truth = float(mixing[strongest].square().mean())  # the mean of z^2 is 1, and residuals average out
    misses = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(300, LATENT, generator=generator)
        drawn = 0.5 + z @ mixing + 0.02 * torch.randn(300, PIXELS, generator=generator)
        found = order_variables(planted, ImageSet("set", drawn.clamp(0, 1).unflatten(1, SHAPE)), codes=z, top=1, seed=seed)
        assert found.leading == (strongest,)
        assert int(found.seen[strongest]) < 300
        misses.append((float(found.score[strongest]) - truth) / float(found.standard_error[strongest]))
    assert np.std(misses) == pytest.approx(1.0, abs=0.25)


def test_channels_of_a_spatial_code_are_the_variables(generator: torch.Generator) -> None:
    """Both channels are drawn one above the other, the lower one brighter."""
    drawn = torch.rand(N, 1, 4, 6, generator=generator) * torch.tensor([0.3, 0.3, 1.0, 1.0])[:, None]
    images = ImageSet("noise", drawn)
    model = CallableModel(
        name="stacked",
        image_shape=SHAPE,
        latent_shape=(2, 2, 6),
        encode_with=lambda x: (x.reshape(-1, 2, 2, 6), torch.zeros(len(x), 2, 2, 6)),
        decode_with=lambda z: z.reshape(-1, *SHAPE),
    )
    squares = np.square(drawn.double().numpy()).reshape(N, 2, 12)
    gain = order_variables(model, images)
    assert gain.variables == (1, 0)
    np.testing.assert_allclose(gain.score.numpy(), squares.sum(axis=2).mean(axis=0) / PIXELS, rtol=1e-6)
    fast = order_variables(model, images, top=1)
    assert fast.leading == (1,)
    assert fast.decodes < gain.decodes
    kl = order_variables(model, images, by="kl")
    np.testing.assert_allclose(kl.score.numpy(), squares.sum(axis=2).mean(axis=0) / 2, rtol=1e-6)
    variance = order_variables(model, images, by="variance")
    np.testing.assert_allclose(
        variance.score.numpy(), drawn.double().numpy().reshape(N, 2, 12).var(axis=0).mean(axis=1), rtol=1e-6
    )
    jacobian = order_variables(model, images, by="jacobian")  # each pixel follows its position: 12 of 24 pixels, slope 1
    np.testing.assert_allclose(jacobian.score.numpy(), [0.5**0.5] * 2, rtol=1e-6)
    assert jacobian.tied == (True,)


# The other measures


def test_kl_is_that_of_normal_distributions(planted: CallableModel, images: ImageSet) -> None:
    encoding = encode(planted, images)
    assert encoding.log_variance is not None
    posterior = Normal(encoding.mean.double(), (0.5 * encoding.log_variance.double()).exp())
    each = kl_divergence(posterior, Normal(torch.tensor(0.0).double(), torch.tensor(1.0).double()))
    found = order_variables(planted, images, by="kl")
    torch.testing.assert_close(found.score, each.mean(dim=0))
    torch.testing.assert_close(found.standard_error, each.std(dim=0) / N**0.5)
    assert list(found.variables) == each.mean(dim=0).argsort(descending=True).tolist()
    assert found.decodes == 0


def test_variance_is_that_of_the_means(planted: CallableModel, images: ImageSet) -> None:
    found = order_variables(planted, images, by="variance")
    np.testing.assert_allclose(found.score.numpy(), encode(planted, images).mean.double().numpy().var(axis=0), rtol=1e-6)


def test_the_jacobian_norm_is_that_of_reverse_mode(generator: torch.Generator) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, PIXELS))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    model = CallableModel(
        name="bent", image_shape=SHAPE, latent_shape=(3,), decode_with=lambda z: net(z).sigmoid().unflatten(1, SHAPE)
    )
    points = torch.randn(20, 3, generator=generator)
    full = torch.stack([torch.autograd.functional.jacobian(lambda z: net(z).sigmoid(), point) for point in points])  # type: ignore[no-untyped-call]
    found = order_variables(model, ImageSet("any", torch.rand(20, *SHAPE)), codes=points, by="jacobian")
    expected = full.double().square().mean(dim=1).mean(dim=0).sqrt()
    torch.testing.assert_close(found.score, expected, rtol=1e-5, atol=0.0)
    each = full.double().square().mean(dim=1)
    delta = each.std(dim=0) / 20**0.5 / (2 * expected)
    torch.testing.assert_close(found.standard_error, delta, rtol=1e-4, atol=0.0)


def test_positions_whose_derivatives_cancel_count_in_full(generator: torch.Generator) -> None:
    """A channel's derivative is the sum of squares over its positions; added up with one sign, these would leave nothing."""
    pattern = torch.tensor([1.0, -1.0, 2.0, -2.0])
    model = CallableModel(
        name="cancelling",
        image_shape=(1, 1, 1),
        latent_shape=(1, 2, 2),
        decode_with=lambda z: (z.flatten(1) @ pattern.to(z.dtype)).view(-1, 1, 1, 1),
    )
    points = torch.randn(4000, 1, 2, 2, generator=generator)
    drawn = squared_derivatives(model, points, seed=1)
    assert float(drawn.mean()) == pytest.approx(10.0, abs=5 * float(drawn.std()) / 4000**0.5)
    assert drawn.equal(squared_derivatives(model, points, seed=1))
    assert not drawn.equal(squared_derivatives(model, points, seed=2))


def test_every_measure_finds_the_planted_order_where_codes_are_standard_normal(
    planted: CallableModel, images: ImageSet, codes: Tensor
) -> None:
    for by in ("gain", "jacobian"):
        found = order_variables(planted, images, codes=codes, by=by)
        assert list(found.variables) in (STRONGEST_FIRST, [1, 5, 4, 0, 2, 3])


def test_agreement_is_one_with_itself_and_minus_one_reversed(planted: CallableModel, images: ImageSet, codes: Tensor) -> None:
    found = order_variables(planted, images, codes=codes, fast=False)
    assert rank_agreement(found, found) == pytest.approx(1.0)
    turned = Ordering(**{**vars(found), "score": -found.score})
    assert rank_agreement(found, turned) == pytest.approx(-1.0)


# What is told


def test_one_image_ties_everything(planted: CallableModel, images: ImageSet) -> None:
    found = order_variables(planted, images.slice(0, 1), top=2)
    assert all(tied in (True, None) for tied in found.tied)
    assert bool(found.standard_error.isnan().all())
    assert json.dumps(found.to_json(), allow_nan=False)


def test_the_record_has_a_row_a_variable_and_no_nan(planted: CallableModel, images: ImageSet) -> None:
    found = order_variables(planted, images, top=3, seed=5)
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [row["variable"] for row in record["table"]] == list(found.variables)
    assert [row["rank"] for row in record["table"]] == list(range(1, LATENT + 1))
    assert record["leading"] == list(found.leading)
    assert record["provenance"]["seed"] == 5


def test_the_seed_decides_which_images_are_drawn(planted: CallableModel, images: ImageSet) -> None:
    first, again, other = (order_variables(planted, images, top=1, seed=seed) for seed in (1, 1, 2))
    assert first.score.equal(again.score)
    assert not first.score.equal(other.score)


def test_codes_stay_as_they_were(planted: CallableModel, images: ImageSet, codes: Tensor) -> None:
    before = codes.clone()
    for by in MEASURES:
        if by != "kl":
            order_variables(planted, images, codes=codes, by=by)
    assert codes.equal(before)


# Mistakes


def test_mistakes_are_told(planted: CallableModel, images: ImageSet, codes: Tensor) -> None:
    blind = CallableModel(name="blind", image_shape=SHAPE, latent_shape=(LATENT,), encode_with=planted.encode_with)
    flat = CallableModel(
        name="flat", image_shape=SHAPE, latent_shape=(LATENT,), decode_with=lambda z: torch.zeros(len(z), *SHAPE)
    )
    lost = CallableModel(
        name="lost", image_shape=SHAPE, latent_shape=(LATENT,), decode_with=lambda z: torch.full((len(z), *SHAPE), torch.nan)
    )
    broken = codes.clone()
    broken[3, 1] = torch.nan
    with pytest.raises(CapabilityError, match="blind lacks"):
        order_variables(blind, images)
    with pytest.raises(CapabilityError, match="Order by gain"):
        order_variables(planted, images, codes=codes, by="kl")
    with pytest.raises(CapabilityError, match="an encoder, which flat lacks"):
        order_variables(flat, images)
    with pytest.raises(IllPosedError, match="No variable of flat"):
        order_variables(flat, images, codes=codes, by="jacobian")
    with pytest.raises(NonFiniteError, match="lost decodes"):
        order_variables(lost, images, codes=codes, top=2)
    with pytest.raises(NonFiniteError, match="hold NaN"):
        order_variables(planted, images, codes=broken)
    with pytest.raises(UnknownNameError, match="'gains'"):
        order_variables(planted, images, by="gains")
    with pytest.raises(SettingError, match="top 7 of 6"):
        order_variables(planted, images, top=7)
    with pytest.raises(SettingError, match=r"got 1\.5"):
        order_variables(planted, images, confidence=1.5)
    with pytest.raises(SettingError, match="A fast order finds a top by gain"):
        order_variables(planted, images, fast=True)
    with pytest.raises(SettingError, match="A fast order finds a top by gain"):
        order_variables(planted, images, top=2, by="variance", fast=True)
    with pytest.raises(CodeShapeError):
        order_variables(planted, images, codes=codes[:, :3])
    with pytest.raises(IllPosedError, match="399 codes for the 400 images"):
        order_variables(planted, images, codes=codes[:399])
    with pytest.raises(IllPosedError, match="Encode the same images"):
        order_variables(planted, images.take(torch.arange(N).flip(0)), codes=encode(planted, images))
    with pytest.raises(ImageFormatError):
        order_variables(planted, ImageSet("large", torch.rand(3, 1, 8, 8)))
    with pytest.raises(IllPosedError, match="holds no images"):
        order_variables(planted, ImageSet("none", torch.rand(0, *SHAPE)))


def test_attention_has_a_jacobian_and_it_is_that_of_reverse_mode() -> None:
    """Signs of the positions are drawn: their mean is within its standard error of the sum over positions."""
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = VAE(AutoencoderKL(latent=2, channels=(4, 4), layers=1, norm_groups=2), (1, 4, 4))
    point = torch.randn(1, 2, 2, 2)
    full = torch.autograd.functional.jacobian(model.decode, point)  # type: ignore[no-untyped-call]
    expected = full.double().square().sum(dim=(6, 7)).mean(dim=(0, 1, 2, 3)).flatten()
    drawn = squared_derivatives(model, point.repeat(400, 1, 1, 1))
    error = drawn.std(dim=0) / 20
    assert ((drawn.mean(dim=0) - expected).abs() < 4 * error).all()
    assert (error < 0.1 * expected).all()


def test_codes_from_a_store_in_half_precision_give_the_order_of_the_codes_in_memory(
    planted: CallableModel, images: ImageSet, tmp_path: Path
) -> None:
    stored = encode(planted, images, out=tmp_path / "codes", dtype="float16")
    assert stored.mean.dtype == torch.float16
    by_store = order_variables(planted, images, codes=Encoding.from_pretrained(tmp_path / "codes"))
    by_memory = order_variables(planted, images, codes=encode(planted, images))
    assert by_store.variables == by_memory.variables


def test_codes_in_half_precision_are_decoded(planted: CallableModel, codes: Tensor) -> None:
    (drawn,) = decode_batches(planted, codes.half(), size=N)
    torch.testing.assert_close(drawn, planted.decode(codes), atol=2e-3, rtol=0)
