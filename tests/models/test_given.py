"""What only looks like a model or like images is told from one before any work, with the way to make one of it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, ImageFormatError, SettingError
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.models.adapters.modules import from_module
from latlas.models.given import check_image_set, check_image_source, check_model
from latlas.models.protocols import require_autoencoder, require_encoder, require_generator
from latlas.models.relocated import require_decoder


class Own(nn.Module):
    """A network as people write them: batch norm, dropout, and none of the names that latlas asks for."""

    def __init__(self, drop: float = 0.5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(drop)

    def encode(self, images: Tensor) -> Tensor:
        return self.drop(self.norm(images.flatten(1)))

    def decode(self, codes: Tensor) -> Tensor:
        return codes.view(-1, 1, 2, 2).sigmoid()


def wrapped(module: nn.Module) -> nn.Module:
    return from_module(module, image_shape=(1, 2, 2), latent_shape=(4,), standard_normal=True)


# Models


@pytest.mark.parametrize(
    ("came", "words"),
    [
        (Own(), r"got an Own\. Wrap it: latlas\.from_module\(it, image_shape="),
        ("zoo:digits-dense", r"got the text 'zoo:digits-dense'\. Load it: latlas\.load_model\('zoo:digits-dense'\)"),
        (Path("runs/a"), r"Load it: latlas\.load_model\('runs/a'\)"),
        (None, r"got None\. Load one with latlas\.load_model"),
        (Own, r"got the class Own itself\."),
        (SimpleNamespace(model=wrapped(Own()), history=[]), r"got a SimpleNamespace\. Give its \.model\."),
        (SimpleNamespace(recoder=wrapped(Own())), r"Give its \.recoder\."),
    ],
)
def test_what_is_no_model_is_told_apart_with_the_way_to_one(came: object, words: str) -> None:
    with pytest.raises(CapabilityError, match=f"^A question needs a model, .*{words}"):
        check_model(came, "A question")


@pytest.mark.parametrize("ask", [require_autoencoder, require_encoder, require_generator, require_decoder])
def test_a_model_in_training_mode_is_refused_and_learns_nothing_from_being_asked(ask: object) -> None:
    module = Own()
    model = wrapped(module)
    module.train()  # behind the wrapper's back
    with pytest.raises(SettingError, match=r"Own is in training mode: its layers Dropout, BatchNorm1d would .* Call eval\(\)"):
        ask(model, "A question")  # type: ignore[operator]
    assert module.norm.num_batches_tracked == 0
    module.eval()
    assert ask(model, "A question") is model  # type: ignore[operator]


def test_training_mode_matters_only_where_a_layer_goes_by_it() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.0))
    model = from_module(module, image_shape=(1, 2, 2), latent_shape=(4,), encode="forward", decode=None)
    module.train()
    check_model(model, "A question")


@pytest.mark.parametrize(
    "encode",
    [
        lambda network: network.encode,  # a method
        lambda network: lambda images: network.encode(images),  # a closure
        lambda network: torch.no_grad()(lambda images: network.encode(images)),  # one that is wrapped
        lambda network: network,  # the network itself
    ],
    ids=["method", "closure", "wrapped", "network"],
)
def test_the_networks_that_functions_name_are_looked_at_too(encode: object) -> None:
    network = Own()
    model = CallableModel(name="pair", image_shape=(1, 2, 2), latent_shape=(4,), encode_with=encode(network))  # type: ignore[operator]
    network.train()
    with pytest.raises(SettingError, match="pair is in training mode: its layers Dropout, BatchNorm1d"):
        require_encoder(model, "A question")
    network.eval()
    require_encoder(model, "A question")


# Images


@pytest.mark.parametrize(
    ("came", "words"),
    [
        (torch.rand(5, 1, 2, 2), r'got a tensor of 5x1x2x2\. Make one: latlas\.ImageSet\("a name", tensor\)'),
        (np.zeros((5, 1, 2, 2)), r'got an array of 5x1x2x2\. Make one: .*"a name", torch\.from_numpy\(array\)'),
        ("mnist:test", r"got the text 'mnist:test'\. Load them: latlas\.load_images\('mnist:test'\)"),
        (Path("photos"), r"Load them: latlas\.load_images\('photos'\)"),
        ([torch.rand(1, 2, 2)], r"got a list of 1\. Make one"),
        (None, r"got None\. Make one"),
        (
            SimpleNamespace(name="disk", image_shape=(1, 2, 2), blocks=None),
            r"got a SimpleNamespace\. That gives .* latlas\.load_images",
        ),
    ],
)
def test_what_is_no_image_set_is_told_apart_with_the_way_to_one(came: object, words: str) -> None:
    with pytest.raises(ImageFormatError, match=words):
        check_image_set(came, "A question")


def test_what_lies_on_disk_serves_where_blocks_are_enough() -> None:
    check_image_source(SimpleNamespace(name="disk", image_shape=(1, 2, 2), blocks=None), "A question")
    check_image_source(ImageSet("held", torch.rand(2, 1, 2, 2)), "A question")
    with pytest.raises(ImageFormatError, match="A question needs images as an ImageSet, got a tensor of 2x1x2x2"):
        check_image_source(torch.rand(2, 1, 2, 2), "A question")
