"""An ONNX file answers as PyTorch does, says what it is, and is written only then."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, MissingExtraError, OutputExistsError, SettingError
from latlas.base.provenance import Provenance
from latlas.maps.folding import fold
from latlas.maps.linear import LinearMap
from latlas.maps.spatial_map import SpatialMap
from latlas.models import exporting
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.registry import ARCHITECTURES, architecture
from latlas.models.exporting import export_onnx
from latlas.models.vae import VAE
from latlas.numerics.patches import PatchGeometry

SMALL: dict[str, dict[str, Any]] = {
    "dense": {"widths": (8,), "latent": 3},
    "conv": {"channels": (4, 8), "latent": 3},
    "resnet": {"scales": 2, "base_dim": 4, "fc_dim": 8, "latent": 3},
    "split": {"scales": 2, "base_dim": 4, "fc_dim": 8, "latent": 3},
    "draw": {"steps": 2, "latent": 2, "hidden": 8, "read": 3, "write": 3},
    "autoencoder-kl": {"latent": 2, "channels": (4, 8), "norm_groups": 2},
}


@pytest.fixture(autouse=True)
def _unchecked_shapes() -> Iterator[None]:
    """Shapes are not checked here: asking a traced network whether it is a model would hash weights that have no numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def build(name: str = "dense", image_shape: tuple[int, int, int] = (1, 12, 12)) -> VAE:
    torch.manual_seed(0)
    provenance = Provenance(made_by="train_vae", seed=3, made_from={"images": "ab"})
    model = VAE(architecture(name, **SMALL[name]), image_shape, name="mine", provenance=provenance)
    with torch.no_grad():
        for part in model.parameters():
            part.add_(0.3 * torch.randn_like(part))  # far from its start, so that wrong answers would show
    return model


def from_functions(decode: Callable[[Tensor], Tensor] | None = None, encode: Callable[..., Any] | None = None) -> CallableModel:
    return CallableModel(name="mine", image_shape=(1, 2, 2), latent_shape=(4,), decode_with=decode, encode_with=encode)


def run(path: Path, given: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers = session.run(None, {session.get_inputs()[0].name: given.numpy()})
    return [torch.from_numpy(np.asarray(answer)) for answer in answers]


def draws(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(11))


def test_every_architecture_is_exported_here() -> None:
    assert set(SMALL) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", SMALL)
def test_a_decoder_answers_as_pytorch_does_for_any_number_of_codes(name: str, tmp_path: Path) -> None:
    model = build(name)
    done = export_onnx(model, tmp_path / "model.onnx")
    assert (done.inputs, done.outputs, done.what, done.batch) == (("codes",), ("images",), "decode", None)
    assert done.largest_difference <= 1e-4
    for count in (1, 7):
        given = 2 * draws(count, *model.latent_shape) - 1
        (found,) = run(tmp_path / "model.onnx", given)
        with torch.no_grad():
            torch.testing.assert_close(found, model.decode(given), atol=1e-4, rtol=0)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)


@pytest.mark.parametrize("name", ["dense", "conv", "draw"])
def test_an_encoder_answers_with_means_and_log_variances(name: str, tmp_path: Path) -> None:
    model = build(name, (3, 8, 8))
    done = export_onnx(model, tmp_path / "model.onnx", what="encode")
    assert (done.inputs, done.outputs) == (("images",), ("mean", "log_variance"))
    given = draws(5, 3, 8, 8)
    mean, log_variance = run(tmp_path / "model.onnx", given)
    with torch.no_grad():
        expected = model.encode(given)
    torch.testing.assert_close(mean, expected.mean, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(log_variance, expected.log_variance, atol=1e-4, rtol=1e-5)


def test_a_deterministic_encoder_has_means_alone(tmp_path: Path) -> None:
    done = export_onnx(from_functions(encode=lambda images: 2 * images.flatten(1)), tmp_path / "model.onnx", what="encode")
    assert done.outputs == ("mean",)
    assert run(tmp_path / "model.onnx", torch.ones(3, 1, 2, 2))[0].equal(torch.full((3, 4), 2.0))


A_GRID = CallableModel(
    name="B", image_shape=(1, 6, 6), latent_shape=(2, 6, 6), decode_with=lambda codes: codes.sum(dim=1, keepdim=True).sigmoid()
)


def a_linear_map(source: int, target: int) -> LinearMap:
    stream = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(source, target, generator=stream), torch.randn(target, generator=stream)
    return LinearMap(weight=weight.double(), bias=bias.double(), kind="affine", source="A", target="B")


def a_spatial_map(geometry: PatchGeometry) -> SpatialMap:
    stream = torch.Generator().manual_seed(1)
    weight = torch.randn(2 * geometry.up**2, 3, geometry.window, geometry.window, generator=stream).double()
    bias, fill = torch.randn(weight.shape[0], generator=stream).double(), torch.randn(3, generator=stream).double()
    return SpatialMap(weight=weight, bias=bias, fill=fill, geometry=geometry, kind="affine", source="A", target="B")


@pytest.mark.parametrize(
    ("fitted", "name"),
    [
        (a_linear_map(5, 3), "dense"),
        (a_linear_map(5, 72), "grid"),
        (a_spatial_map(PatchGeometry(3)), "autoencoder-kl"),
        (a_spatial_map(PatchGeometry(1, up=2)), "grid"),
        (a_spatial_map(PatchGeometry(3, down=2)), "grid"),
    ],
    ids=["vector", "vector to grid", "3x3", "finer", "coarser"],
)
def test_a_folded_model_takes_the_codes_of_the_source(fitted: LinearMap | SpatialMap, name: str, tmp_path: Path) -> None:
    target = A_GRID if name == "grid" else build(name)
    model = fold(fitted, target)
    export_onnx(model, tmp_path / "model.onnx")
    given = draws(4, *model.latent_shape)
    (found,) = run(tmp_path / "model.onnx", given)
    moved = fitted.apply(given.double()).float().view(4, *target.latent_shape)  # by the map itself, in float64
    with torch.no_grad():
        torch.testing.assert_close(found, target.decode(moved), atol=1e-4, rtol=0)


def test_a_file_for_a_fixed_number_takes_no_other(tmp_path: Path) -> None:
    model = build()
    assert export_onnx(model, tmp_path / "model.onnx", batch=4).batch == 4
    assert run(tmp_path / "model.onnx", draws(4, 3))[0].shape == (4, 1, 12, 12)
    with pytest.raises(Exception, match="invalid dimensions"):
        run(tmp_path / "model.onnx", draws(5, 3))


def test_the_file_says_what_it_is_and_not_where_it_was_made(tmp_path: Path) -> None:
    model = build()
    export_onnx(model, tmp_path / "model.onnx")
    found = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "model.onnx")).metadata_props}
    assert model.provenance is not None
    assert json.loads(found.pop("latlas.provenance")) == model.provenance.to_json()
    assert found.pop("latlas.version")
    assert found == {
        "latlas.model": "mine",
        "latlas.part": "decode",
        "latlas.fingerprint": model.fingerprint,
        "latlas.image_shape": "[1, 12, 12]",
        "latlas.latent_shape": "[3]",
    }
    content = (tmp_path / "model.onnx").read_bytes()
    for trace in (str(Path(exporting.__file__).parents[2]), "site-packages", ".py", "stack_trace", str(tmp_path)):
        assert trace.encode() not in content, trace


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("first", "second"):
        export_onnx(build(), tmp_path / f"{name}.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_a_model_in_training_mode_is_exported_as_it_evaluates_and_left_as_it_was(tmp_path: Path) -> None:
    model = build("resnet")
    model.train()
    model.encoder.eval()
    before = {name: part.clone() for name, part in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    export_onnx(model, tmp_path / "model.onnx")
    assert [part.training for part in model.modules()] == modes
    assert all(part.equal(before[name]) for name, part in model.state_dict().items())
    given = draws(3, 3)
    with torch.no_grad():
        torch.testing.assert_close(run(tmp_path / "model.onnx", given)[0], model.eval().decode(given), atol=1e-5, rtol=0)


# What is not written


class Constant(nn.Module):
    """Another network than the one that was asked for."""

    def forward(self, given: Tensor) -> tuple[Tensor]:
        return (given.view(-1, 1, 2, 2) + 1e-3,)


def test_a_file_that_answers_otherwise_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda network, *rest, **more: export(Constant(), *rest, **more))
    with pytest.raises(CapabilityError, match=r"its images differ from PyTorch's by 0.001, and 0.0001 is allowed. Nothing was"):
        export_onnx(from_functions(decode=lambda codes: codes.view(-1, 1, 2, 2)), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def _at_random(codes: Tensor) -> Tensor:
    return codes.view(-1, 1, 2, 2) + torch.rand(len(codes), 1, 2, 2)


def _by_value(codes: Tensor) -> Tensor:
    return codes.view(-1, 1, 2, 2) if float(codes.sum()) > 0 else 1 - codes.view(-1, 1, 2, 2)


def _of_one_number(codes: Tensor) -> Tensor:
    return codes.view(2, 1, 2, 2)


@pytest.mark.parametrize("decode", [_at_random, _by_value, _of_one_number])
def test_what_onnx_cannot_repeat_is_refused_in_one_line(decode: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match=r"mine (cannot be exported|was exported, but)") as caught:
        export_onnx(from_functions(decode=decode), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_lies_there_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="already exists; name a new file"):
        export_onnx(build(), path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"what": "sample"}, "exports its decode or encode half, got 'sample'"),
        ({"batch": 0}, "whole number of at least 1"),
        ({"batch": True}, "whole number of at least 1"),
        ({"batch": 2.0}, "whole number of at least 1"),
        ({"batch": "any"}, "whole number of at least 1"),
    ],
)
def test_a_half_or_a_batch_that_there_is_not_is_refused(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=words):
        export_onnx(build(), tmp_path / "model.onnx", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("what", "lacking"), [("decode", "a decoder"), ("encode", "an encoder")])
def test_a_half_that_the_model_lacks_is_named(what: Any, lacking: str, tmp_path: Path) -> None:
    half = {"encode": lambda images: images} if what == "decode" else {"decode": lambda codes: codes}
    with pytest.raises(CapabilityError, match=f"An export of the {what} half needs {lacking}, which mine lacks"):
        export_onnx(from_functions(**half), tmp_path / "model.onnx", what=what)


def test_weights_beyond_the_formats_limit_are_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_LARGEST", 1000)
    with pytest.raises(CapabilityError, match="GiB of weights, and an ONNX file holds 2"):
        export_onnx(build(), tmp_path / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_comes_with_what_installs_it(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'latlas\[onnx\]'"):
        export_onnx(build(), tmp_path / "model.onnx")
