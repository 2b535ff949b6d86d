"""Codes that an encoding keeps in half precision are measured as the same codes in float32."""

import pytest
import torch
from torch import Tensor, nn

from latlas.measurements.jacobians import squared_derivatives
from latlas.measurements.traversals import traverse, traverse_all
from latlas.models.adapters.callables import CallableModel


@pytest.fixture
def decoder() -> CallableModel:
    layer = nn.Linear(4, 64).requires_grad_(False)

    def decode(codes: Tensor) -> Tensor:
        return layer(codes).sigmoid().view(-1, 1, 8, 8)

    return CallableModel(name="small", image_shape=(1, 8, 8), latent_shape=(4,), decode_with=decode)


def test_a_traversal_from_a_code_in_half_precision_is_that_from_the_widened_one(decoder: CallableModel) -> None:
    codes = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).half()
    assert torch.equal(traverse(decoder, codes[0], 1), traverse(decoder, codes[0].float(), 1))
    assert torch.equal(traverse_all(decoder, codes, [0, 3]), traverse_all(decoder, codes.float(), [0, 3]))


def test_derivatives_at_codes_in_half_precision_are_those_at_the_widened_ones(decoder: CallableModel) -> None:
    codes = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).half()
    assert torch.equal(squared_derivatives(decoder, codes), squared_derivatives(decoder, codes.float()))
