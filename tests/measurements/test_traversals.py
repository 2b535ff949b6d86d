"""Traversals: each image is the one that the decoder draws of the code with one variable set, and the code stays as it was."""

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import CodeShapeError, SettingError
from latlas.measurements.traversals import SPAN, traverse, traverse_all
from latlas.models.adapters.callables import CallableModel

PLAIN = CallableModel(
    name="plain", image_shape=(1, 2, 2), latent_shape=(4,), decode_with=lambda codes: codes.reshape(-1, 1, 2, 2)
)
GRID = CallableModel(
    name="grid", image_shape=(1, 4, 2), latent_shape=(2, 2, 2), decode_with=lambda codes: codes.reshape(-1, 1, 4, 2)
)


def code(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variable", range(4))
@pytest.mark.parametrize(("steps", "span"), [(11, (-2.25, 2.25)), (5, (0.5, 3.0)), (2, (1.0, -1.0))])
def test_one_variable_takes_numpys_even_steps_and_the_others_stay(variable: int, steps: int, span: tuple[float, float]) -> None:
    start = code(4)
    expected = np.tile(start.numpy(), (steps, 1))
    expected[:, variable] = np.linspace(*span, steps)
    found = traverse(PLAIN, start, variable, steps=steps, span=span)
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, atol=1e-6)
    assert start.equal(code(4))


def test_the_span_is_that_of_the_posts_where_nothing_else_is_said() -> None:
    found = traverse(PLAIN, code(4), 2)
    assert SPAN == (-2.25, 2.25)
    np.testing.assert_allclose(found.flatten(1)[:, 2].numpy(), np.linspace(-2.25, 2.25, 11), atol=1e-6)


def test_a_channel_is_set_at_every_position() -> None:
    start = code(2, 2, 2)
    found = traverse(GRID, start, 1, steps=3, span=(-1.0, 1.0)).view(3, 2, 2, 2)
    for image, value in zip(found, (-1.0, 0.0, 1.0), strict=True):
        assert image[0].equal(start[0])
        assert image[1].equal(torch.full((2, 2), value))


def test_all_are_each_in_the_order_asked_for() -> None:
    starts = code(3, 4)
    found = traverse_all(PLAIN, starts, [3, 0], steps=6, span=(-1.0, 2.0))
    assert found.shape == (3, 2, 6, 1, 2, 2)
    for place, start in enumerate(starts):
        for column, variable in enumerate([3, 0]):
            assert found[place, column].equal(traverse(PLAIN, start, variable, steps=6, span=(-1.0, 2.0)))


def test_what_cannot_be_traversed_is_refused() -> None:
    with pytest.raises(CodeShapeError, match="variables 0 to 3, asked for 4"):
        traverse(PLAIN, code(4), 4)
    for codes, variables, steps in ((code(0, 4), [0], 3), (code(2, 4), [], 3), (code(2, 4), [0], 1)):
        with pytest.raises(SettingError, match="2 steps at least"):
            traverse_all(PLAIN, codes, variables, steps=steps)
