"""Axis names, so that a signature says the shape and the test run checks it.

Axes: `n` images or codes, `c h w` channels, height and width of an image, `latent` variables of a vector latent
space. A spatial code is `n channel row column`; `*latent` stands for either.
"""

from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

Images = Float[Tensor, "n c h w"]  # in [0, 1]: nothing inside latlas knows another range
Pixels = UInt8[Tensor, "n c h w"]  # how images are kept in memory
Codes = Float[Tensor, "n *latent"]  # a vector or a spatial latent space
Rows = Float[Tensor, "n d"]  # any matrix of observations
Labels = Int[Tensor, " n"]
PerImage = Float64[Tensor, " n"]  # one number an image
PerVariable = Float64[Tensor, " latent"]  # one number a latent variable

ImageShape = tuple[int, int, int]  # c, h, w
LatentShape = tuple[int, ...]  # (latent,) or (channel, row, column)
