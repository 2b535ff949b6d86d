"""Models whose every answer is known: images are a linear drawing of three factors, and a residual that no model draws."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel

SHAPE, PIXELS, FACTORS = (1, 4, 6), 24, 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and on a busy machine wait for it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class World:
    """x = 0.5 + factors @ drawing + residual, the residual at right angles to the drawing."""

    drawing: Tensor  # factors x pixels, float64
    factors: Tensor  # n x factors
    residual: Tensor  # n x pixels

    @property
    def drawn(self) -> Tensor:
        """What a perfect model of the factors returns."""
        return 0.5 + self.factors @ self.drawing

    def images(self, name: str = "world") -> ImageSet:
        pixels = self.drawn + self.residual
        assert 0 < float(pixels.min()) < float(pixels.max()) < 1
        return ImageSet(name, pixels.float().unflatten(1, SHAPE))

    def factors_of(self, images: Tensor) -> Tensor:
        return (images.flatten(1).double() - 0.5) @ torch.linalg.pinv(self.drawing)

    def autoencoder(self, basis: Tensor, shift: float = 0.0, *, name: str = "planted") -> CallableModel:
        """A model whose codes are factors @ basis + shift; exact, whatever the basis (of full rank)."""
        back = torch.linalg.pinv(basis)
        return CallableModel(
            name=name,
            image_shape=SHAPE,
            latent_shape=(basis.shape[1],),
            encode_with=lambda images: (self.factors_of(images) @ basis + shift).to(images.dtype),
            decode_with=lambda codes: (
                (0.5 + (codes.double() - shift) @ back @ self.drawing).to(codes.dtype).unflatten(1, SHAPE)
            ),
            fingerprint=f"weights of {name}",
        )


@pytest.fixture(scope="session")
def world() -> World:
    """500 images; the first factor draws the most, the third the least."""
    generator = torch.Generator().manual_seed(11)
    strength = torch.tensor([0.05, 0.03, 0.015], dtype=torch.float64)
    drawing = strength[:, None] * torch.randn(FACTORS, PIXELS, generator=generator, dtype=torch.float64)
    factors = torch.randn(500, FACTORS, generator=generator, dtype=torch.float64).clamp(-2.5, 2.5) + 0.2
    residual = 0.02 * torch.randn(500, PIXELS, generator=generator, dtype=torch.float64).clamp(-2, 2)
    inside = residual @ torch.linalg.pinv(drawing) @ drawing
    return World(drawing, factors, residual - inside)


@pytest.fixture
def basis() -> Tensor:
    """Some other coordinates of the same three factors."""
    generator = torch.Generator().manual_seed(12)
    return torch.eye(FACTORS, dtype=torch.float64) + 0.5 * torch.randn(
        FACTORS, FACTORS, generator=generator, dtype=torch.float64
    )
