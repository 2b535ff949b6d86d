"""StyleGAN2: what the reference implementation computed, the published formulae written out, and one image in three spaces."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import Tensor, nn
from torch.nn import functional as F

from latlas.base.errors import (
    ArtifactError,
    CapabilityError,
    CodeShapeError,
    ImageFormatError,
    MissingPathError,
    SettingError,
    UnknownNameError,
)
from latlas.models.adapters.stylegan2 import Request, StyleGANModel, load_stylegan2, parse_request
from latlas.models.architectures.stylegan2 import StyleGAN2, StyleGAN2Generator, clip
from latlas.models.architectures.stylegan2_layers import StyledConvolution, convolve_down, convolve_up, lowpass, upsample
from latlas.models.generator import GeneratorModel

SAMPLE = Path(__file__).parent / "samples" / "stylegan2_32.npz"
SMALL = StyleGAN2(latent=6, style=5, layers=2, channel_base=64, channel_max=8)


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    """The network and its results, as samples/README.md describes them."""
    with np.load(SAMPLE, allow_pickle=False) as archive:
        assert json.loads(str(archive["config"]))["num_ws"] == 8
        return {name: torch.from_numpy(archive[name]) for name in archive.files if name != "config"}


@pytest.fixture(scope="module")
def network(reference: dict[str, Tensor]) -> StyleGAN2Generator:
    built = StyleGAN2(latent=64, style=64, layers=4, channel_base=1024, channel_max=64).generator((3, 32, 32))
    built.load_state_dict({name.removeprefix("state/"): each for name, each in reference.items() if name.startswith("state/")})
    assert isinstance(built, StyleGAN2Generator)
    return built.eval().requires_grad_(False)


def small(settings: StyleGAN2 = SMALL, *, side: int = 16) -> StyleGAN2Generator:
    """A network in which nothing is at its neutral start: biases, noise strengths and the mean style are random."""
    torch.manual_seed(5)
    built = settings.generator((3, side, side))
    assert isinstance(built, StyleGAN2Generator)
    for name, parameter in built.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            parameter.data += 0.3 * torch.randn(parameter.shape)
    built.mapping.w_avg.normal_()
    return built.eval().requires_grad_(False)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# The reference implementation


def test_the_reference_implementation_is_reproduced(network: StyleGAN2Generator, reference: dict[str, Tensor]) -> None:
    """Codes with and without truncation, images of w with and without noise, and of w+."""
    z = reference["z"]
    assert relative(network.spread(network.styles(z)), reference["w"]) < 1e-5
    assert relative(network.spread(network.styles(z, truncation=0.7)), reference["w_truncated"]) < 1e-5
    assert relative(network.synthesis(reference["w"]), reference["image_const"]) < 1e-5
    assert relative(network.synthesis(reference["w_truncated"], "none"), reference["image_none"]) < 1e-5
    assert relative(network.synthesis(reference["w_plus"]), reference["image_w_plus"]) < 1e-5


def test_the_named_spaces_draw_its_images(network: StyleGAN2Generator, reference: dict[str, Tensor]) -> None:
    """In [0, 1], as the reference's own images in [-1, 1] become when they are shown."""
    shown = {name: (reference[name] / 2 + 0.5).clamp(0, 1) for name in ("image_const", "image_none", "image_w_plus")}

    def model(space: str, **settings: Any) -> StyleGANModel:
        return StyleGANModel(network, (3, 32, 32), space=space, **settings)

    torch.testing.assert_close(model("z").decode(reference["z"]), shown["image_const"], rtol=0, atol=1e-4)
    torch.testing.assert_close(model("w").decode(reference["w"][:, 0]), shown["image_const"], rtol=0, atol=1e-4)
    torch.testing.assert_close(model("w+").decode(reference["w_plus"].flatten(1)), shown["image_w_plus"], rtol=0, atol=1e-4)
    truncated = model("z", truncation=0.7, noise="none")
    torch.testing.assert_close(truncated.decode(reference["z"]), shown["image_none"], rtol=0, atol=1e-4)


# The formulae, written out


def resampled(image: np.ndarray, taps: list[float], *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> np.ndarray:
    """SciPy's upsampling, filter and downsampling, axis by axis; padding stands before the filter."""
    line = np.array(taps) / np.sum(taps)
    for axis in (-1, -2):
        spread = upfirdn([1.0], image, up=up, axis=axis)
        missing = image.shape[axis] * up - spread.shape[axis]
        widths = [(0, 0)] * image.ndim
        widths[axis] = (pad[0], missing + max(pad[1], 0))
        spread = np.pad(spread, widths)
        if pad[1] < 0:
            spread = np.take(spread, range(spread.shape[axis] + pad[1]), axis=axis)
        filtered = upfirdn(line, spread, axis=axis)
        whole = range(len(line) - 1, spread.shape[axis])
        image = np.take(filtered, list(whole)[::down], axis=axis)
    return image


FILTERS = [[1.0, 3.0, 3.0, 1.0], [1.0, 2.0, 1.0], [1.0, 4.0], [1.0], [1.0, 5.0, 2.0, 4.0, 3.0, 1.0]]


@pytest.mark.parametrize("taps", FILTERS)
def test_upsampling_is_scipys(taps: list[float], generator: torch.Generator) -> None:
    images = torch.randn(2, 3, 5, 5, generator=generator)
    size = len(taps)
    expected = 4 * resampled(images.numpy(), taps, up=2, pad=((size + 1) // 2, (size - 2) // 2))
    torch.testing.assert_close(upsample(images, lowpass(taps)), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("taps", FILTERS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_up_is_zeros_a_kernel_and_a_filter(taps: list[float], kernel: int, generator: torch.Generator) -> None:
    """The kernel and the filter commute; here the filter comes first, and the kernel turned round, since torch correlates."""
    images = torch.randn(2, 3, 6, 6, generator=generator)
    weight = torch.randn(4, 3, kernel, kernel, generator=generator)
    size, half = len(taps), kernel // 2
    wide = 4 * resampled(images.numpy(), taps, up=2, pad=((size + 1) // 2 + half, (size - 2) // 2 + half))
    expected = F.conv2d(torch.from_numpy(wide).float(), weight.flip(2, 3))
    found = convolve_up(images, weight, lowpass(taps))
    assert found.shape == (2, 4, 12, 12)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("taps", FILTERS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_down_is_a_filter_and_every_other_position(
    taps: list[float], kernel: int, generator: torch.Generator
) -> None:
    images = torch.randn(2, 3, 8, 8, generator=generator)
    weight = torch.randn(4, 3, kernel, kernel, generator=generator)
    size, half = len(taps), kernel // 2
    filtered = resampled(images.numpy(), taps, pad=(half + (size - 1) // 2, half + (size - 2) // 2))
    expected = F.conv2d(torch.from_numpy(filtered).float(), weight)[..., ::2, ::2]
    torch.testing.assert_close(convolve_down(images, weight, lowpass(taps)), expected, rtol=1e-4, atol=1e-4)


def styled(layer: StyledConvolution, features: Tensor, styles: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
    """One image at a time, with weights that are scaled and normalised as the paper writes them (equations 1 and 3)."""
    images = []
    for feature, style in zip(features, styles, strict=True):
        scales = style @ layer.affine.weight.T / style.shape[0] ** 0.5 + layer.affine.bias
        weight = layer.weight * scales[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if layer.up:
            side = 2 * feature.shape[-1]
            spread = torch.zeros(feature.shape[0], side, side)
            spread[:, ::2, ::2] = feature
            line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
            each = F.conv2d(F.pad(spread, [3, 2, 3, 2])[:, None], 4 * torch.outer(line, line)[None, None])
            out = F.conv2d(each.transpose(0, 1), weight.flip(2, 3))[0]
        else:
            out = F.conv2d(feature[None], weight, padding=1)[0]
        if noise is not None:
            out = out + noise * layer.noise_strength
        images.append(gain * 2**0.5 * F.leaky_relu(out + layer.bias[:, None, None], 0.2))
    return torch.stack(images)


def drawn(network: StyleGAN2Generator, codes: Tensor, structure: str, *, noise: bool) -> Tensor:
    """The synthesis in plain words, of the same weights."""
    features = network.synthesis.b4.const.expand(len(codes), -1, -1, -1)
    image: Tensor | None = None
    layer = 0
    for side in (4, 8, 16):
        block = getattr(network.synthesis, f"b{side}")
        before = features
        gains = [1.0, 0.5**0.5] if structure == "resnet" and side > 4 else [1.0, 1.0]
        for name, gain in zip(("conv0", "conv1") if side > 4 else ("conv1",), gains, strict=False):
            conv = getattr(block, name)
            features = styled(conv, features, codes[:, layer], conv.noise_const if noise else None, gain)
            layer += 1
        if structure == "resnet" and side > 4:
            features = features + 0.5**0.5 * upsample(
                F.conv2d(before, block.skip.weight) / before.shape[1] ** 0.5, lowpass([1.0, 3.0, 3.0, 1.0])
            )
        if image is not None:
            image = upsample(image, lowpass([1.0, 3.0, 3.0, 1.0]))
        if structure == "skip" or side == 16:
            style = codes[:, layer] @ block.torgb.affine.weight.T / codes.shape[2] ** 0.5 + block.torgb.affine.bias
            each = torch.einsum("nchw,oc,nc->nohw", features, block.torgb.weight[..., 0, 0], style) / features.shape[1] ** 0.5
            each = each + block.torgb.bias[:, None, None]
            image = each if image is None else image + each
    assert image is not None
    return image


@pytest.mark.parametrize("structure", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("noise", [True, False])
def test_every_structure_is_what_the_paper_writes(structure: str, noise: bool, generator: torch.Generator) -> None:
    settings = StyleGAN2(latent=6, style=5, layers=2, channel_base=64, channel_max=8, structure=structure)
    network = small(settings)
    codes = torch.randn(3, network.num_ws, 5, generator=generator)
    assert network.num_ws == 6
    found = network.synthesis(codes, "const" if noise else "none")
    torch.testing.assert_close(found, drawn(network, codes, structure, noise=noise), rtol=1e-3, atol=1e-4)


def test_features_are_clamped(generator: torch.Generator) -> None:
    """At 256 nothing is cut, at 0.01 all layers are."""
    codes = torch.randn(2, 6, 5, generator=generator)
    images = [
        small(StyleGAN2(latent=6, style=5, layers=2, channel_base=64, channel_max=8, clamp=clamp)).synthesis(codes)
        for clamp in (None, 256.0, 0.01)
    ]
    assert images[0].equal(images[1])
    assert float(images[2].abs().max()) < 0.05 < float(images[0].abs().max())


def test_an_image_does_not_depend_on_its_company(generator: torch.Generator) -> None:
    network = small()
    codes = torch.randn(3, 6, generator=generator)
    together = network(codes)
    torch.testing.assert_close(torch.cat([network(code[None]) for code in codes]), together, rtol=1e-4, atol=1e-5)


# Mapping


def test_the_mapping_is_dense_layers_of_normed_codes_and_classes(generator: torch.Generator) -> None:
    settings = StyleGAN2(
        latent=6, style=5, classes=3, layers=2, width=7, embedding=4, mapping_rate=0.1, channel_base=64, channel_max=8
    )
    mapping = small(settings).mapping
    codes, labels = torch.randn(4, 6, generator=generator), torch.eye(3)[[0, 1, 2, 2]]
    embedded = labels @ mapping.embed.weight.T / 3**0.5 + mapping.embed.bias
    rows = torch.cat(
        [codes / codes.square().mean(1, keepdim=True).sqrt(), embedded / embedded.square().mean(1, keepdim=True).sqrt()], dim=1
    )
    for layer in (mapping.fc0, mapping.fc1):
        rows = 2**0.5 * F.leaky_relu(rows @ layer.weight.T * 0.1 / rows.shape[1] ** 0.5 + layer.bias * 0.1, 0.2)
    torch.testing.assert_close(mapping(codes, labels), rows)


def test_truncation_moves_towards_the_mean_up_to_the_cutoff(generator: torch.Generator) -> None:
    network = small()
    codes = torch.randn(3, 6, generator=generator)
    plain = StyleGANModel(network, (3, 16, 16)).layers(codes)
    half = StyleGANModel(network, (3, 16, 16), truncation=0.5, cutoff=2).layers(codes)
    torch.testing.assert_close(half[:, :2], (plain[:, :2] + network.mapping.w_avg) / 2)
    assert half[:, 2:].equal(plain[:, 2:])
    none = StyleGANModel(network, (3, 16, 16), truncation=0.0).layers(codes)
    torch.testing.assert_close(none, network.mapping.w_avg.expand_as(none))


# Noise


def test_noise_is_decided_by_its_argument(generator: torch.Generator) -> None:
    network = small()
    codes = torch.randn(2, 6, 5, generator=generator)
    buffers = network.synthesis.noise_buffers
    const = network.synthesis(codes)
    assert network.synthesis(codes, buffers).equal(const)
    assert not network.synthesis(codes, "none").allclose(const, atol=1e-3)
    torch.testing.assert_close(network.synthesis(codes, [0 * each for each in buffers]), network.synthesis(codes, "none"))
    own = [torch.stack([each, -each])[:, None] for each in buffers]  # one noise for each image
    torch.testing.assert_close(network.synthesis(codes, own)[0], const[0], rtol=1e-4, atol=1e-5)
    assert not network.synthesis(codes, own)[1].allclose(const[1], atol=1e-3)
    first, again, other = (network.synthesis(codes, "random", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.allclose(other, atol=1e-3)
    same = codes[:1].expand(2, -1, -1)
    drawn_apart = network.synthesis(same, "random", torch.Generator().manual_seed(1))
    assert not drawn_apart[0].allclose(drawn_apart[1], atol=1e-3)


def test_noise_that_makes_no_sense_is_refused(generator: torch.Generator) -> None:
    network = small()
    codes = torch.randn(2, 6, 5, generator=generator)
    with pytest.raises(UnknownNameError, match="noise 'loud'"):
        network.synthesis(codes, "loud")
    with pytest.raises(SettingError, match="needs a generator"):
        network.synthesis(codes, "random")
    with pytest.raises(SettingError, match="each of 5 layers, got 1"):
        network.synthesis(codes, [torch.zeros(4, 4)])


def test_a_network_without_noise_has_none(generator: torch.Generator) -> None:
    network = small(StyleGAN2(latent=6, style=5, layers=2, channel_base=64, channel_max=8, noisy=False))
    codes = torch.randn(2, 6, 5, generator=generator)
    assert network.synthesis.noise_buffers == []
    assert network.synthesis(codes).equal(network.synthesis(codes, "none"))
    assert not any("noise" in name for name in network.state_dict())


# Clipping


def test_clipping_shows_the_bounds_and_keeps_the_way_back() -> None:
    """The gradient is that of the identity, save where it would lead further out."""
    values = torch.tensor([[-0.5, -0.5, 0.25, 0.25, 1.5, 1.5]], requires_grad=True)
    clipped = clip(values)
    assert clipped.tolist() == [[0, 0, 0.25, 0.25, 1, 1]]
    clipped.backward(torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]]))
    assert values.grad is not None
    assert values.grad.tolist() == [[0, -1, 1, -1, 1, 0]]


def test_a_descent_brings_back_what_is_whiter_than_white() -> None:
    value = torch.tensor([[3.0]], requires_grad=True)
    optimizer = torch.optim.SGD([value], lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        (clip(value) - 0.25).square().sum().backward()
        optimizer.step()
    assert float(value) == pytest.approx(0.25, abs=1e-3)


# Spaces


def test_one_image_in_three_spaces(generator: torch.Generator) -> None:
    in_z = StyleGANModel(small(), (3, 16, 16))
    in_w, in_plus = in_z.in_space("w"), in_z.in_space("w+")
    assert [model.latent_shape for model in (in_z, in_w, in_plus)] == [(6,), (5,), (30,)]
    codes = torch.randn(3, 6, generator=generator)
    styles = in_z.network.styles(codes)
    images = in_z.decode(codes)
    assert images.equal(in_w.decode(styles))
    assert images.equal(in_plus.decode(in_z.network.spread(styles).flatten(1)))
    assert images.equal(GeneratorModel(SMALL, (3, 16, 16)).network.__class__.forward(in_z.network, codes))
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert len({model.fingerprint for model in (in_z, in_w, in_plus)}) == 3


@pytest.mark.parametrize("space", ["z", "w", "w+"])
@pytest.mark.parametrize("truncation", [1.0, 0.6])
def test_the_same_seed_draws_the_same_images_in_every_space(space: str, truncation: float) -> None:
    in_z = StyleGANModel(small(), (3, 16, 16), truncation=truncation)
    model = in_z.in_space(space)
    codes = model.sample_codes(4, torch.Generator().manual_seed(9))
    assert tuple(codes.shape) == (4, *model.latent_shape)
    expected = in_z.decode(in_z.sample_codes(4, torch.Generator().manual_seed(9)))
    torch.testing.assert_close(model.decode(codes), expected)


def test_the_mean_code_draws_the_mean_style() -> None:
    in_w = StyleGANModel(small(), (3, 16, 16), space="w")
    mean = in_w.network.mapping.w_avg
    assert in_w.mean_code.equal(mean)
    assert in_w.in_space("w+").decode(in_w.in_space("w+").mean_code[None]).equal(in_w.decode(mean[None]))
    assert in_w.in_space("z").mean_code.equal(torch.zeros(6))


def test_classes_are_drawn_as_asked() -> None:
    settings = StyleGAN2(latent=6, style=5, classes=3, layers=2, channel_base=64, channel_max=8)
    network = small(settings)
    codes = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    images = [StyleGANModel(network, (3, 16, 16), label=label).decode(codes) for label in range(3)]
    assert not images[0].allclose(images[1], atol=1e-3)
    torch.testing.assert_close(images[2], clip(network.draw(network.spread(network.styles(codes, torch.eye(3)[[2, 2]])))))
    mixed = StyleGANModel(network, (3, 16, 16), space="w").sample_codes(60, torch.Generator().manual_seed(1))
    fixed = StyleGANModel(network, (3, 16, 16), space="w", label=1).sample_codes(60, torch.Generator().manual_seed(1))
    agree = int((mixed - fixed).abs().amax(dim=1).lt(1e-5).sum())
    assert 8 < agree < 35  # a third of them
    with pytest.raises(CapabilityError, match=r"draws 3 classes of images: say which one, as in \?class=0"):
        StyleGANModel(network, (3, 16, 16))
    with pytest.raises(CapabilityError, match="3 classes"):
        network(codes)
    with pytest.raises(SettingError, match="classes 0 to 2, got 3"):
        StyleGANModel(network, (3, 16, 16), label=3)
    with pytest.raises(CapabilityError, match="has no classes"):
        StyleGANModel(small(), (3, 16, 16), label=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"space": "v"}, "latent space 'v'"),
        ({"noise": "random"}, "noise 'random'"),
        ({"truncation": float("nan")}, "psi"),
        ({"truncation": 7.0}, "psi"),
        ({"cutoff": 7}, "between 0 and the 6 layers"),
        ({"cutoff": 2, "space": "w"}, r"needs z or w\+"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((SettingError, UnknownNameError), match=words):
        StyleGANModel(small(), (3, 16, 16), **settings)


def test_codes_of_another_space_are_refused() -> None:
    with pytest.raises(CodeShapeError, match="takes codes of shape 30, got 5"):
        StyleGANModel(small(), (3, 16, 16), space="w+").decode(torch.zeros(2, 5))


# Specs and artifacts


def test_a_spec_names_a_place_settings_and_a_space() -> None:
    assert parse_request("a/b.pkl") == Request(place="a/b.pkl")
    expected = Request(place="a.pkl", space="w+", truncation=0.5, cutoff=3, label=2, noise="none")
    assert parse_request("a.pkl?psi=0.5&cutoff=3,class=2&noise=none#w+") == expected
    for wrong, words in {
        "a?psi=x": "psi must be a number, got 'x'",
        "a?size=3": "Unknown setting 'size'",
        "a?psi": "got ''",
    }.items():
        with pytest.raises(SettingError, match=words):
            parse_request(wrong)


def test_a_saved_generator_is_opened_in_every_space(tmp_path: Path) -> None:
    model = GeneratorModel(SMALL, (3, 16, 16), name="ours")
    model.network.load_state_dict(small().state_dict())
    model.save_pretrained(tmp_path / "ours")
    codes = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.decode(codes)
        in_z = load_stylegan2(f"{tmp_path / 'ours'}")
        assert in_z.decode(codes).equal(expected)
        in_w = load_stylegan2(f"{tmp_path / 'ours'}#w")
        assert in_w.decode(in_z.network.styles(codes)).equal(expected)
    assert in_w.name == "ours w"
    assert GeneratorModel.from_pretrained(tmp_path / "ours").architecture == SMALL


def test_other_places_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"No file or folder .* Expected stylegan2:FILE\.pkl"):
        load_stylegan2(str(tmp_path / "none.pkl"))
    from latlas.models.architectures.dcgan import DCGAN

    GeneratorModel(DCGAN(channels=2, latent=3), (3, 16, 16)).save_pretrained(tmp_path / "dcgan")
    with pytest.raises(ArtifactError, match="a dcgan, which has no w"):
        load_stylegan2(str(tmp_path / "dcgan"))


# Sizes


@pytest.mark.parametrize(("side", "layers"), [(4, 2), (8, 4), (64, 10)])
def test_every_power_of_two_is_served(side: int, layers: int) -> None:
    network = StyleGAN2(latent=3, style=3, layers=1, channel_base=64, channel_max=4).generator((1, side, side))
    assert network.num_ws == layers
    assert tuple(network(torch.randn(2, 3)).shape) == (2, 1, side, side)


@pytest.mark.parametrize(
    ("shape", "words"), [((3, 32, 16), "square"), ((3, 48, 48), "power of two, got 48"), ((3, 2, 2), "4 x 4 at least")]
)
def test_other_images_are_refused(shape: tuple[int, int, int], words: str) -> None:
    with pytest.raises(ImageFormatError, match=words):
        SMALL.generator(shape)


@pytest.mark.parametrize(
    "settings",
    [
        {"latent": 0},
        {"layers": 0},
        {"width": 0},
        {"classes": -1},
        {"mapping_rate": 0.0},
        {"clamp": -1.0},
        {"taps": (1.0, -1.0)},
        {"taps": ()},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        StyleGAN2(**settings)
    with pytest.raises(UnknownNameError, match="structure 'deep'"):
        StyleGAN2(structure="deep")
    with pytest.raises(SettingError, match="at least the images' side 32"):
        StyleGAN2(channel_base=16).generator((3, 32, 32))


# Discriminator


def test_the_discriminator_sees_whether_a_batch_is_all_alike(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    judge = SMALL.discriminator((3, 16, 16))
    images = torch.rand(4, 3, 16, 16, generator=generator)
    alike = images[:1].expand(4, -1, -1, -1)
    assert not torch.allclose(judge(images)[0], judge(alike)[0], atol=1e-3)
    torch.testing.assert_close(judge(alike), judge(images[:1]).expand(4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(judge(images.flip(0)), judge(images).flip(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_batches_of_every_size_are_judged(count: int, generator: torch.Generator) -> None:
    logits = SMALL.discriminator((1, 8, 8))(torch.rand(count, 1, 8, 8, generator=generator))
    assert tuple(logits.shape) == (count,)
    logits.sum().backward()


@pytest.mark.parametrize("width", [8, 128])
def test_features_neither_fade_nor_swell_whatever_the_width(width: int) -> None:
    """The point of scales that are brought back: below 1 only as the filter takes away what is above half the frequency."""
    torch.manual_seed(0)
    network = StyleGAN2(latent=64, style=64, channel_base=32 * width, channel_max=width).generator((3, 32, 32))
    seen: list[float] = []
    for layer in network.modules():
        if isinstance(layer, StyledConvolution):
            layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(float(output.detach().square().mean())))
    with torch.no_grad():
        network(torch.randn(64, 64))
    assert len(seen) == 7
    assert all(0.1 < each < 2 for each in seen), seen


def test_no_parameter_is_left_without_a_gradient() -> None:
    for structure in ("skip", "resnet", "orig"):
        network = StyleGAN2(latent=6, style=5, layers=2, channel_base=64, channel_max=8, structure=structure).generator(
            (3, 16, 16)
        )
        assert isinstance(network, nn.Module)
        network(torch.randn(2, 6)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
