"""Networks that lose latent variables: what is left computes what the whole one does with constants in their place."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, CodeShapeError, NonFiniteError, SettingError
from latlas.base.provenance import UNSTATED
from latlas.models.adapters.callables import CallableModel
from latlas.models.adapters.modules import from_module
from latlas.models.architectures.autoencoder_kl import AutoencoderKL
from latlas.models.architectures.draw import Draw, DrawDecoder, DrawEncoder
from latlas.models.architectures.registry import ARCHITECTURES, architecture
from latlas.models.architectures.surgery import Cut, Prunable
from latlas.models.protocols import CodeScale, require_generator
from latlas.models.pruning import PinnedModel, prunes_to_a_network, without_variables
from latlas.models.vae import VAE

SHAPE = (1, 20, 20)
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "dense": ("dense", {"widths": (24, 12), "latent": 6}),
    "dense without hidden layers": ("dense", {"widths": (), "latent": 6}),
    "conv": ("conv", {"channels": (6, 10), "latent": 6}),
    "resnet": ("resnet", {"scales": 2, "base_dim": 6, "fc_dim": 12, "latent": 6}),
    "split": ("split", {"scales": 2, "base_dim": 6, "fc_dim": 12, "latent": 6}),
    "draw": ("draw", {"steps": 3, "latent": 2, "hidden": 24, "read": 3, "write": 3}),
    "draw without attention": ("draw", {"steps": 2, "latent": 3, "hidden": 24, "attention": False}),
    "autoencoder-kl": ("autoencoder-kl", {"latent": 6, "channels": (8, 12), "norm_groups": 4}),
}
KEPT = {"few": (1, 4), "all but one": (0, 1, 2, 3, 5), "one": (3,)}
CONSTANTS = torch.tensor([0.7, -1.1, 0.4, 2.0, -0.6, 1.3], dtype=torch.float64)


def build(case: str) -> VAE:
    """A network whose batch norms remember other statistics than those of fresh weights."""
    name, settings = CASES[case]
    torch.manual_seed(0)
    model = VAE(architecture(name, **settings), SHAPE)
    model.train()
    for seed in range(3):
        model.reconstruct_logits(some_images(16, seed), torch.randn(16, *model.latent_shape))
    return model.eval()


def some_images(n: int = 8, seed: int = 1) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def held(codes: Tensor, kept: Sequence[int], constants: Tensor = CONSTANTS) -> Tensor:
    """Codes of the whole network, in which the variables that are not kept are constant."""
    whole = constants.to(codes).reshape(1, -1, *[1] * (codes.ndim - 2)).expand_as(codes).clone()
    whole[:, list(kept)] = codes[:, list(kept)]
    return whole


def test_every_architecture_is_tried_and_can_be_pruned() -> None:
    assert {name for name, _ in CASES.values()} == set(ARCHITECTURES)
    assert all(isinstance(architecture(name), Prunable) for name in ARCHITECTURES)


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("case", CASES)
def test_the_decoder_draws_what_the_whole_one_draws_with_constants(case: str, kept: tuple[int, ...]) -> None:
    """The logits, where no sigmoid hides a difference; of codes as large as they come."""
    model = build(case)
    pruned = without_variables(model, kept=kept, constants=CONSTANTS)
    codes = 2.0 * model.sample_codes(8, torch.Generator().manual_seed(2))
    whole = model.decode_logits(held(codes, kept))
    torch.testing.assert_close(pruned.decode_logits(codes[:, list(kept)]), whole, rtol=0, atol=1e-5)
    # The constants are no trifle: with others in their place the test would have seen it.
    assert float((model.decode_logits(held(codes, kept, CONSTANTS + 0.1)) - whole).detach().abs().max()) > 1e-4


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("draw")])
def test_the_encoder_gives_the_kept_posteriors(case: str, kept: tuple[int, ...]) -> None:
    model = build(case)
    pruned = without_variables(model, kept=kept, constants=CONSTANTS)
    before, after = model.encode(some_images()), pruned.encode(some_images())
    assert before.log_variance is not None
    assert after.log_variance is not None
    torch.testing.assert_close(after.mean, before.mean[:, list(kept)], rtol=0, atol=1e-6)
    torch.testing.assert_close(after.log_variance, before.log_variance[:, list(kept)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("draw")])
def test_draw_sees_the_constants_at_every_step(case: str, kept: tuple[int, ...]) -> None:
    """Held against the steps of the whole network, taken here one by one with constants put into each code."""
    model = build(case)
    settings, encoder, decoder = model.architecture, model.encoder, model.decoder
    assert isinstance(settings, Draw)
    assert isinstance(encoder, DrawEncoder)
    assert isinstance(decoder, DrawDecoder)
    pruned = without_variables(model, kept=kept, constants=CONSTANTS)
    images = some_images()
    noise = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))

    mine = tuple(start.expand(8, -1) for start in encoder.start)
    theirs, canvas = decoder.begin(8)
    means, log_variances, codes = [], [], []
    for step in range(settings.steps):
        part = slice(step * settings.latent, (step + 1) * settings.latent)
        glimpse = encoder.look(images, images - canvas.sigmoid(), theirs.hidden)
        mine = encoder.network(torch.cat([glimpse, theirs.hidden], dim=1), mine)
        mean, log_variance = encoder.head(mine[0]).chunk(2, dim=1)
        code = mean + noise[:, part] * (0.5 * log_variance).exp()
        for place in range(settings.latent):
            if step * settings.latent + place not in kept:
                code[:, place] = float(CONSTANTS[step * settings.latent + place])
        theirs, canvas = decoder.step(code, theirs, canvas)
        for collected, values in ((means, mean), (log_variances, log_variance), (codes, code)):
            collected.append(values)

    posterior, logits = pruned.reconstruct_logits(images, noise[:, list(kept)])
    torch.testing.assert_close(logits, canvas, rtol=0, atol=1e-5)
    torch.testing.assert_close(posterior.mean, torch.cat(means, dim=1)[:, list(kept)], rtol=0, atol=1e-6)
    torch.testing.assert_close(posterior.log_variance, torch.cat(log_variances, dim=1)[:, list(kept)], rtol=0, atol=1e-6)
    drawn = pruned.infer(images, noise[:, list(kept)])[1]
    torch.testing.assert_close(drawn, torch.cat(codes, dim=1)[:, list(kept)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_pruned_network_can_be_pruned_again(case: str) -> None:
    model = build(case)
    once = without_variables(model, kept=(0, 2, 3, 5), constants=CONSTANTS)
    twice = without_variables(once, kept=(1, 3), constants=torch.tensor([5.0, 0.0, -3.0, 0.0], dtype=torch.float64))
    codes = model.sample_codes(4, torch.Generator().manual_seed(4))
    constants = torch.tensor([5.0, CONSTANTS[1], 0.0, -3.0, CONSTANTS[4], 0.0], dtype=torch.float64)
    whole = model.decode_logits(held(codes, (2, 5), constants))
    torch.testing.assert_close(twice.decode_logits(codes[:, [2, 5]]), whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_it_is_an_ordinary_model_of_the_smaller_size(case: str, tmp_path: object) -> None:
    model = build(case)
    before = model.fingerprint
    pruned = without_variables(model, kept=(1, 3), constants=CONSTANTS, name="small")
    assert isinstance(pruned, VAE)
    assert type(pruned.architecture) is type(model.architecture)
    assert pruned.latent_shape == (2, *model.latent_shape[1:])
    assert (pruned.name, pruned.training) == ("small", False)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters())
    assert model.fingerprint == before, "the model that was given stays as it was"
    pruned.save_pretrained(f"{tmp_path}/small")
    again = VAE.from_pretrained(f"{tmp_path}/small")
    assert again.fingerprint == pruned.fingerprint
    codes = pruned.sample_codes(3, torch.Generator().manual_seed(5))
    assert again.decode(codes).equal(pruned.decode(codes))


def test_dense_layers_have_no_row_or_column_too_many() -> None:
    pruned = without_variables(build("dense"), kept=(1, 4), constants=CONSTANTS)
    assert [tuple(p.shape) for p in pruned.parameters() if p.ndim == 2] == [
        (24, 400), (12, 24), (4, 12), (12, 2), (24, 12), (400, 24),
    ]  # fmt: skip


def test_convolutions_behind_a_constant_channel_are_as_narrow_as_can_be() -> None:
    """Two channels and one of ones; and never wider than before."""
    model = build("autoencoder-kl")
    few = without_variables(model, kept=(1, 4), constants=CONSTANTS)
    many = without_variables(model, kept=(0, 1, 2, 3, 5), constants=CONSTANTS)
    for pruned, between in ((few, 3), (many, 6)):
        assert isinstance(pruned, VAE)
        assert isinstance(pruned.architecture, AutoencoderKL)
        assert pruned.architecture.between == between
        assert pruned.decoder.network.conv_in.weight.shape[1] == between
    assert few.encoder.network.conv_out.weight.shape[0] == 4


def test_the_random_numbers_of_others_are_left_alone() -> None:
    model = build("dense")
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    without_variables(model, kept=(1,), constants=CONSTANTS)
    assert torch.rand(3).equal(wanted)


@pytest.mark.parametrize("kept", [(), (1, 1), (4, 1), (6,), (-1, 2)])
def test_a_cut_that_names_no_variables_is_refused(kept: tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match="at least one of 6 variables, each named once and in ascending order"):
        Cut(kept=kept, constants=CONSTANTS)


def test_constants_of_another_model_are_refused() -> None:
    with pytest.raises(CodeShapeError, match="has 6 latent variables, got 5 constants"):
        without_variables(build("dense"), kept=(1,), constants=CONSTANTS[:5])


@pytest.mark.parametrize("kept", [(3, 1), (1, 1), (6,), (-1,)])
def test_draw_refuses_variables_that_it_has_not(kept: tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match="draw: kept must name variables from 0 to 5, once each and ascending"):
        Draw(steps=3, latent=2, kept=kept)


def test_a_negative_width_between_is_refused() -> None:
    with pytest.raises(SettingError, match="between must be at least 0, in whole numbers, got -1"):
        AutoencoderKL(between=-1)


# Any other model


class Halves(nn.Module):
    """Codes of three channels: means of the image's quarters, times 1, 2 and 3; decoding is the sum of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = nn.functional.avg_pool2d(images, 2) * self.weight[:, None, None]
        return mean, mean - 1.0

    def decode(self, codes: Tensor) -> Tensor:
        return nn.functional.interpolate(codes.sum(dim=1, keepdim=True), scale_factor=2) / 6


def test_any_model_can_be_seen_through_some_of_its_variables() -> None:
    scale = CodeScale(factor=(2.0, 4.0, 0.5), shift=(0.1,))
    base = from_module(
        Halves(), image_shape=(1, 4, 4), latent_shape=(3, 2, 2), name="halves", scale=scale, scaled=True, standard_normal=True
    )
    assert not prunes_to_a_network(base)
    constants = torch.tensor([0.0, 0.25, 0.0], dtype=torch.float64)
    pruned = without_variables(base, kept=(0, 2), constants=constants)
    assert isinstance(pruned, PinnedModel)
    assert (pruned.name, pruned.latent_shape, pruned.scaling) == ("halves, pruned", (2, 2, 2), "scaled")
    assert pruned.scale == CodeScale(factor=(2.0, 0.5), shift=(0.1,))
    images = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(6))
    before, after = base.encode(images), pruned.encode(images)
    assert after.mean.equal(before.mean[:, [0, 2]])
    assert before.log_variance is not None
    assert after.log_variance is not None
    assert after.log_variance.equal(before.log_variance[:, [0, 2]])
    assert pruned.decode(after.mean).equal(base.decode(held(before.mean, (0, 2), constants)))
    drawn = require_generator(pruned, "A test").sample_codes(4, torch.Generator().manual_seed(0))
    assert drawn.equal(base.sample_codes(4, torch.Generator().manual_seed(0))[:, [0, 2]])
    with pytest.raises(CodeShapeError, match="takes codes of shape 2x2x2, got 3x2x2"):
        pruned.decode(before.mean)


def test_its_fingerprint_tells_cuts_apart_and_states_nothing_of_the_unstated() -> None:
    def model(fingerprint: str) -> CallableModel:
        return CallableModel(
            name="pair",
            image_shape=(1, 2, 2),
            latent_shape=(4,),
            encode_with=lambda images: images.flatten(1),
            decode_with=lambda codes: codes.unflatten(1, (1, 2, 2)),
            fingerprint=fingerprint,
        )

    zeros = torch.zeros(4, dtype=torch.float64)
    made = {
        without_variables(base, kept=kept, constants=constants).fingerprint
        for base, kept, constants in (
            (model("a"), (0, 1), zeros), (model("b"), (0, 1), zeros), (model("a"), (0, 2), zeros), (model("a"), (0, 1), zeros + 1),
        )
    }  # fmt: skip
    assert len(made) == 4
    assert without_variables(model(UNSTATED), kept=(0,), constants=zeros).fingerprint == UNSTATED


def test_half_a_model_cannot_be_pruned() -> None:
    blind = CallableModel(name="blind", image_shape=(1, 2, 2), latent_shape=(4,), decode_with=lambda codes: codes)
    with pytest.raises(CapabilityError, match="Pruning needs an encoder, which blind lacks"):
        without_variables(blind, kept=(0,), constants=torch.zeros(4, dtype=torch.float64))
    seen = without_variables(
        from_module(Halves(), image_shape=(1, 4, 4), latent_shape=(3, 2, 2)), kept=(0,), constants=torch.zeros(3).double()
    )
    with pytest.raises(CapabilityError, match="draw its own codes"):
        require_generator(seen, "A test")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_constants_that_are_no_numbers_are_refused_where_they_would_be_folded(value: float) -> None:
    constants = CONSTANTS.clone()
    constants[4] = value
    with pytest.raises(NonFiniteError, match="hold NaN or infinity"):
        Cut(kept=(1, 2), constants=constants)
    Cut(kept=(1, 4), constants=constants)  # those of kept variables are of no account
