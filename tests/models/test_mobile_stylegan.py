"""MobileStyleGAN computes what its graph says, and with the published weights what OpenVINO makes of them."""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from latlas.base.errors import ArtifactError, CodeShapeError, MissingExtraError, SettingError, UnknownNameError
from latlas.base.provenance import Provenance
from latlas.base.seeds import generator as seeded
from latlas.models import zoo
from latlas.models.adapters import mobile_stylegan
from latlas.models.adapters.mobile_stylegan import (
    MobileStyleGANModel,
    mapping_weights,
    read_mobile_stylegan,
    synthesis_weights,
)
from latlas.models.adapters.openvino_weights import Graph, Operation
from latlas.models.architectures.mobile_stylegan import MobileStyleGAN, inverse_haar
from latlas.models.protocols import require_generator
from latlas.models.zoo import load_from_zoo, read_options

# z, w, and of OpenVINO's images (float32 arithmetic, cut to [0, 1]) the means of 16 x 16 pixels and four squares of 32 x 32, whose
# upper left corners are in `corners`; made by openvino 2026.4.1 from random-face 2021.7.21.1.
REFERENCE = Path(__file__).parent / "samples" / "mobile_stylegan_reference.npz"

TINY = MobileStyleGAN(widths=(8, 12, 6), latent=5, layers=2, side=4)


def graph_of(parts: list[tuple[str, str, Tensor]]) -> Graph:
    """A graph in which each constant is read by an operation of its own: (name of the constant, kind of the operation, value)."""
    operations: dict[int, Operation] = {}
    for number, (name, kind, value) in enumerate(parts):
        operations[2 * number] = Operation(name=name, kind="Const", inputs=(), value=value)
        operations[2 * number + 1] = Operation(name=f"op{number}", kind=kind, inputs=(2 * number,), value=None)
    return Graph(operations=operations)


def tiny_synthesis() -> list[tuple[str, str, Tensor]]:
    """Constants of a small network, with the names and shapes that the published one has."""
    draw = seeded(5)
    parts: list[tuple[str, str, Tensor]] = []

    def add(name: str, kind: str, *shape: int) -> None:
        parts.append((name, kind, 0.5 * torch.randn(*shape, generator=draw)))

    def style(name: str, channels: int) -> None:
        add(f"{name}.modulation.weight", "MatMul", channels, TINY.latent)
        add(f"{name}.modulation.bias", "Add", 1, channels)

    first = TINY.widths[0]
    add("m.input.input", "Multiply", 1, first, 4, 4)
    style("m.conv1.conv", first)
    add("Mul_1", "Convolution", first, first, 3, 3)
    add("noise", "Add", 1, 1, 4, 4)
    add("m.conv1.bias", "Add", 1, first, 1, 1)
    for stage, (inputs, outputs) in enumerate(zip(TINY.widths[:-1], TINY.widths[1:], strict=True)):
        side = 8 * 2**stage
        style(f"m.layers.{stage}.up", inputs)
        for name, channels in (("conv1", inputs // 4), ("conv2", outputs)):
            style(f"m.layers.{stage}.{name}.conv", channels)
            add(f"m.layers.{stage}.{name}.conv.weight_dw", "GroupConvolution", channels, 1, 1, 3, 3)
            add("Mul_2", "Convolution", outputs, channels, 1, 1)
            add("noise", "Add", 1, 1, side, side)
            add(f"m.layers.{stage}.{name}.bias", "Add", 1, outputs, 1, 1)
    last = len(TINY.widths) - 2
    style(f"m.layers.{last}.to_img.conv", TINY.widths[-1])
    add(f"m.layers.{last}.to_img.conv.weight", "Convolution", 12, TINY.widths[-1], 1, 1)
    add(f"m.layers.{last}.to_img.bias", "Add", 1, 12, 1, 1)
    return parts


def haar_by_transposed_convolutions(grid: Tensor) -> Tensor:
    """The inverse transform as the graph spells it: each four channels c, then rows, then columns, each by stride 2."""
    channels = grid.shape[1] // 4
    low, high = grid[:, :channels], grid[:, channels:].unflatten(1, (channels, 3))
    root = 0.5**0.5
    smooth, sharp = torch.tensor([root, root]), torch.tensor([root, -root])

    def up(part: Tensor, taps: Tensor, shape: tuple[int, int], stride: tuple[int, int]) -> Tensor:
        kernel = taps.to(part.dtype).reshape(1, 1, *shape).repeat(channels, 1, 1, 1)
        return functional.conv_transpose2d(part, kernel, stride=stride, groups=channels)

    def rows(part: Tensor, taps: Tensor) -> Tensor:
        return up(part, taps, (2, 1), (2, 1))

    even = rows(low, smooth) + rows(high[:, :, 0], sharp)
    odd = rows(high[:, :, 1], smooth) + rows(high[:, :, 2], sharp)
    return up(even, smooth, (1, 2), (1, 2)) + up(odd, sharp, (1, 2), (1, 2))


def synthesis_by_the_graph(parts: list[tuple[str, str, Tensor]], codes: Tensor) -> Tensor:
    """The network operation by operation, in the graph's order of channels, with modulated and scaled inputs."""
    named = {name: value for name, _, value in parts}
    full = iter([value for _, kind, value in parts if kind == "Convolution"])
    noises = iter([value for name, _, value in parts if name == "noise"])

    def style(name: str) -> Tensor:
        drawn = codes @ named[f"{name}.modulation.weight"].T + named[f"{name}.modulation.bias"]
        return drawn[:, :, None, None]

    def finish(grid: Tensor, bias: str) -> Tensor:
        return functional.leaky_relu(grid + next(noises) + named[bias], 0.2)

    weight = next(full)
    grid = named["m.input.input"] * style("m.conv1.conv") / weight[0].numel() ** 0.5
    grid = finish(functional.conv2d(grid, weight, padding=1), "m.conv1.bias")
    for stage in range(len(TINY.widths) - 1):
        grid = haar_by_transposed_convolutions(grid * style(f"m.layers.{stage}.up"))
        for name in ("conv1", "conv2"):
            place = f"m.layers.{stage}.{name}"
            channels = grid.shape[1]
            grid = grid * style(f"{place}.conv") / (9 * channels) ** 0.5
            grid = functional.conv2d(grid, named[f"{place}.conv.weight_dw"][:, 0], padding=1, groups=channels)
            grid = finish(functional.conv2d(grid, next(full)), f"{place}.bias")
    place = f"m.layers.{len(TINY.widths) - 2}.to_img"
    grid = functional.conv2d(grid * style(f"{place}.conv") / grid.shape[1] ** 0.5, next(full)) + named[f"{place}.bias"]
    return haar_by_transposed_convolutions(grid)


def tiny_model(space: str = "w", **settings: Any) -> MobileStyleGANModel:
    model = MobileStyleGANModel(space, settings=TINY, **settings)
    model.synthesis.load_state_dict(synthesis_weights(graph_of(tiny_synthesis())))
    draw = seeded(6)
    layers = [("l", kind, torch.randn(*shape, generator=draw)) for kind, shape in [("MatMul", (5, 5)), ("Reshape", (5,))] * 2]
    model.mapping.load_state_dict(mapping_weights(graph_of(layers)))
    return model


def random_face(file: str) -> Path:
    try:
        return Path(str(metadata.distribution("random-face").locate_file(f"random_face/data/{file}")))
    except metadata.PackageNotFoundError:
        pytest.skip("random-face is not installed")


def test_the_inverse_transform_is_that_of_the_graph(generator: torch.Generator) -> None:
    grid = torch.randn(2, 12, 4, 6, generator=generator)
    by_band = [0, 1, 2, *(3 + 3 * channel + kind for kind in range(3) for channel in range(3))]
    drawn = inverse_haar(grid[:, by_band].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(drawn, haar_by_transposed_convolutions(grid))


def test_the_inverse_transform_keeps_energy_and_knows_a_flat_picture(generator: torch.Generator) -> None:
    grid = torch.randn(1, 3, 5, 8, generator=generator)
    torch.testing.assert_close(inverse_haar(grid).square().sum(), grid.square().sum())
    flat = torch.zeros(1, 2, 2, 4)
    flat[..., 0] = 3.0
    torch.testing.assert_close(inverse_haar(flat), torch.full((1, 4, 4, 1), 1.5))


def test_the_synthesis_is_that_of_the_graph(generator: torch.Generator) -> None:
    codes = torch.randn(3, 5, generator=generator)
    drawn = tiny_model().synthesis(codes)
    assert drawn.shape == (3, 3, 32, 32)
    torch.testing.assert_close(drawn, synthesis_by_the_graph(tiny_synthesis(), codes), rtol=1e-4, atol=1e-4)


def test_the_mapping_normalises_and_then_applies_its_layers(generator: torch.Generator) -> None:
    model = tiny_model()
    codes = torch.randn(4, 5, generator=generator)
    hidden = codes / codes.square().mean(dim=1, keepdim=True).sqrt()
    for layer in model.mapping.layers:
        drawn = hidden @ layer.weight.T + layer.bias  # type: ignore[union-attr, operator]
        hidden = torch.where(drawn > 0, drawn, 0.2 * drawn) * 2**0.5
    torch.testing.assert_close(model.mapping(codes), hidden)
    torch.testing.assert_close(model.mapping(7 * codes), hidden)


def test_gradients_are_those_of_finite_differences(generator: torch.Generator) -> None:
    model = tiny_model().double()
    codes = torch.randn(2, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.synthesis, (codes,), fast_mode=True)


def test_images_lie_in_range_and_halve_the_networks(generator: torch.Generator) -> None:
    model = tiny_model()
    codes = model.sample_codes(3, generator)
    drawn = model.synthesis(codes)
    assert float(drawn.abs().max()) > 1.0  # otherwise the next line would say nothing of what is cut off
    torch.testing.assert_close(model.decode(codes), ((drawn + 1) / 2).clamp(0, 1))


def test_an_image_does_not_hang_on_its_company(generator: torch.Generator) -> None:
    model = tiny_model()
    codes = model.sample_codes(5, generator)
    alone = torch.cat([model.decode(code[None]) for code in codes])
    torch.testing.assert_close(model.decode(codes), alone, rtol=1e-5, atol=1e-6)
    assert model.decode(codes[:0]).shape == (0, 3, 32, 32)


def test_gradients_of_many_images_are_those_of_each(generator: torch.Generator) -> None:
    model = tiny_model()
    codes = model.sample_codes(5, generator)
    together = codes.clone().requires_grad_()
    model.decode(together).square().sum().backward()
    assert together.grad is not None
    for code, slope in zip(codes, together.grad, strict=True):
        one = code[None].clone().requires_grad_()
        model.decode(one).square().sum().backward()
        assert one.grad is not None
        torch.testing.assert_close(slope[None], one.grad, rtol=1e-4, atol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_smaller_image_is_the_mean_of_the_pixels_it_covers(generator: torch.Generator) -> None:
    whole, small = tiny_model(), tiny_model(size=4)
    codes = whole.sample_codes(2, generator)
    assert small.image_shape == (3, 4, 4)
    torch.testing.assert_close(small.decode(codes), whole.decode(codes).reshape(2, 3, 4, 8, 4, 8).mean((3, 5)))


def test_z_is_w_seen_through_the_mapping() -> None:
    in_z, in_w = tiny_model("z"), tiny_model("w")
    codes, styles = in_z.sample_codes(300, seeded(1)), in_w.sample_codes(300, seeded(1))
    torch.testing.assert_close(in_z.decode(codes[:3]), in_w.decode(styles[:3]))
    assert float(codes.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(codes.std()) == pytest.approx(1.0, abs=0.1)
    torch.testing.assert_close(in_w.mean_code(seeded(1), 300), styles.mean(dim=0, keepdim=True))
    assert in_z.fingerprint != in_w.fingerprint != tiny_model("w", size=4).fingerprint
    assert in_w.fingerprint == tiny_model("w").fingerprint
    assert require_generator(in_w, "a question") is in_w


def test_what_cannot_be_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(UnknownNameError, match="Unknown latent space of mobile-stylegan 'w\\+'"):
        tiny_model("w+")
    for size in (0, 3, 64, -4):
        with pytest.raises(SettingError, match="is no divisor"):
            tiny_model(size=size)
    with pytest.raises(CodeShapeError):
        tiny_model().decode(torch.zeros(2, 6))
    for widths in ((8,), (6, 8), (0, 4)):
        with pytest.raises(SettingError):
            MobileStyleGAN(widths=widths)


@pytest.mark.parametrize("change", ["fewer", "shape", "name"])
def test_a_graph_of_another_network_is_refused(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tiny_synthesis()
    if change == "fewer":
        parts = [part for part in parts if part[1] != "Convolution"]
    elif change == "name":
        parts = [(name.replace("conv2", "conv3"), kind, value) for name, kind, value in parts]
    monkeypatch.setattr(mobile_stylegan, "read_ir", lambda _: graph_of(parts))
    monkeypatch.setattr(mobile_stylegan, "mapping_weights", lambda _: MobileStyleGAN().mapping().state_dict())
    with pytest.raises(ArtifactError, match=r"s\.xml does not hold the synthesis of faces"):
        read_mobile_stylegan(tmp_path / "m.xml", tmp_path / "s.xml", name="faces", provenance=Provenance(made_by="test"))


def test_options_are_read_in_either_order() -> None:
    assert read_options("mobile-stylegan?size=64#w") == read_options("mobile-stylegan#w?size=64")
    assert read_options("dcgan-faces") == ("dcgan-faces", {})
    for wrong in ("?size=", "?size=-1", "?sise=3", "#w#z", "?size=2?size=2", "?"):
        with pytest.raises(SettingError, match="cannot be read"):
            read_options(f"mobile-stylegan{wrong}")
    with pytest.raises(SettingError, match="zoo:dcgan-faces has one latent space"):
        load_from_zoo("dcgan-faces#w")


def test_a_missing_package_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(zoo.metadata, "distribution", nowhere)
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps random-face==2021\.7\.21\.1"):
        load_from_zoo("mobile-stylegan#w")


def test_the_published_weights_draw_what_openvino_draws() -> None:
    """Measured: at most 4e-5 apart in any pixel, where 1e-3 is promised."""
    random_face("SynthesisNetwork.xml")
    model = load_from_zoo("mobile-stylegan#z")
    assert isinstance(model, MobileStyleGANModel)
    assert model.provenance is not None
    assert "non-commercial" in model.provenance.settings["licence"]
    with np.load(REFERENCE) as reference:
        z, w, small, crops = (torch.from_numpy(reference[name]) for name in ("z", "w", "small", "crops"))
        corners = reference["corners"].tolist()
    with torch.no_grad():
        torch.testing.assert_close(model.mapping(z), w, rtol=0, atol=1e-4)
        drawn = model.decode(z)
    assert drawn.shape == (2, 3, 1024, 1024)
    torch.testing.assert_close(functional.avg_pool2d(drawn, 16), small, rtol=0, atol=2e-4)
    squares = torch.stack([drawn[:, :, row : row + 32, column : column + 32] for row, column in corners], dim=1)
    torch.testing.assert_close(squares, crops, rtol=0, atol=2e-4)


def test_openvino_itself_draws_the_same() -> None:
    openvino = pytest.importorskip("openvino")
    path = random_face("SynthesisNetwork.xml")
    model = load_from_zoo("mobile-stylegan#w")
    assert isinstance(model, MobileStyleGANModel)
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}  # its default may compute in bfloat16
    network = core.compile_model(core.read_model(path), "CPU", exact)
    codes = model.sample_codes(2, seeded(8))
    with torch.no_grad():
        drawn = model.decode(codes)
    theirs = np.concatenate([network([code[None].numpy()])[0] for code in codes])
    torch.testing.assert_close(drawn, torch.from_numpy(theirs / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-3)
