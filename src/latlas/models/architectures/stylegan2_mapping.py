"""The mapping network of StyleGAN2: from a normal code z to the style code w."""

import torch
from torch import Tensor, nn

from latlas.models.architectures.stylegan2_layers import Dense, unit_second_moment


class Mapping(nn.Module):
    """Dense layers from z, and the embedding of a class where there are classes, to w.

    Args:
        latent: variables of z.
        style: variables of w.
        classes: how many; 0: none.
        layers: how many.
        width: features of a hidden layer; None: as many as w has variables.
        embedding: features of a class; None: as many as w has variables.
        rate: factor on the learning rate.
    """

    w_avg: Tensor

    def __init__(
        self,
        latent: int,
        style: int,
        *,
        classes: int = 0,
        layers: int = 8,
        width: int | None = None,
        embedding: int | None = None,
        rate: float = 0.01,
    ) -> None:
        super().__init__()
        self.latent, self.style, self.classes, self.layers = latent, style, classes, layers
        embedded = (style if embedding is None else embedding) if classes else 0
        hidden = style if width is None else width
        sizes = [latent + embedded, *[hidden] * (layers - 1), style]
        if classes:
            self.embed = Dense(classes, embedded)
        for number in range(layers):
            setattr(self, f"fc{number}", Dense(sizes[number], sizes[number + 1], rate=rate, active=True))
        self.register_buffer("w_avg", torch.zeros(style))

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return w, `n style`.

        Args:
            codes: z, `n latent`.
            labels: `n classes`, one of each row 1 and the others 0; None where there are no classes.
        """
        rows = unit_second_moment(codes.float())
        if self.classes:
            assert labels is not None
            rows = torch.cat([rows, unit_second_moment(self.embed(labels.to(rows)))], dim=1)
        for number in range(self.layers):
            rows = getattr(self, f"fc{number}")(rows)
        return rows

    def truncate(self, styles: Tensor, truncation: float) -> Tensor:
        """Return styles moved towards the mean style: all the way at 0, not at all at 1."""
        return styles if truncation == 1 else self.w_avg.lerp(styles, truncation)
