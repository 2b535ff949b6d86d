"""Patches of spatial codes, and their joint moments with the target positions that they predict.

A map between two grids of positions is a linear map from patches: the window of source positions about a block, to the
target positions of that block. One set of weights serves every block, so the unknowns do not grow with the grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

from latlas.base.errors import CodeShapeError, IllPosedError, NonFiniteError, SettingError
from latlas.numerics.moments import Moments, PairedMoments

_CODES = 256  # looked at together: bounds what a look costs in memory
_ELEMENTS = 2**21  # float64 numbers of patches at a time, 16 MiB: their centred copies are a few times that


@dataclass(frozen=True)
class PatchGeometry:
    """Which source positions predict which target positions.

    Blocks of `down` x `down` source positions, with (neighbourhood - 1) / 2 positions on each side, predict blocks of `up` x
    `up` target positions.

    Raises:
        SettingError: a neighbourhood that is not odd, or a factor below 1.
    """

    neighbourhood: int = 1  # positions across: 1 for the block alone
    down: int = 1  # source positions across a block
    up: int = 1  # target positions across a block

    def __post_init__(self) -> None:
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            raise SettingError(f"A neighbourhood must be odd, so that it has a middle: 1, 3, 5, ...; got {self.neighbourhood}.")
        if self.down < 1 or self.up < 1:
            raise SettingError(f"A block must be at least 1 position across, got {self.down} and {self.up}.")

    @property
    def margin(self) -> int:
        """Positions about a block that a window takes in on each side."""
        return (self.neighbourhood - 1) // 2

    @property
    def window(self) -> int:
        """Source positions across a patch."""
        return self.down + 2 * self.margin

    def border(self) -> Tensor:
        """Return which positions of a window lie outside its block, and so may be absent: `window window`, bool."""
        outside = torch.ones(self.window, self.window, dtype=torch.bool)
        outside[self.margin : self.margin + self.down, self.margin : self.margin + self.down] = False
        return outside


def geometry_between(source: Tensor, target: Tensor, *, neighbourhood: int = 1) -> PatchGeometry:
    """Return the geometry from the grid of one tensor of codes to that of another: `n c h w` each.

    Raises:
        CodeShapeError: the grids do not differ by one integer factor, the same for rows and columns.
        SettingError: a neighbourhood that is not odd.
    """
    (rows, columns), (target_rows, target_columns) = source.shape[2:], target.shape[2:]
    if 0 not in (rows, columns, target_rows, target_columns):
        if rows % target_rows == 0 and columns % target_columns == 0 and rows // target_rows == columns // target_columns:
            return PatchGeometry(neighbourhood, down=rows // target_rows)
        if target_rows % rows == 0 and target_columns % columns == 0 and target_rows // rows == target_columns // columns:
            return PatchGeometry(neighbourhood, up=target_rows // rows)
    raise CodeShapeError(
        f"A spatial map needs grids that differ by one integer factor, the same for rows and columns: got source codes of "
        f"{rows} x {columns} positions and target codes of {target_rows} x {target_columns}. "
        "Encode images whose sides both models divide into such grids."
    )


def padded(codes: Float[Tensor, "n c h w"], fill: Tensor, margin: int) -> Tensor:
    """Return codes with `margin` positions of `fill` (one value a channel) on each side: `n c h+2m w+2m`."""
    if margin == 0:
        return codes
    n, channels, rows, columns = codes.shape
    wide = fill[None, :, None, None].expand(n, channels, rows + 2 * margin, columns + 2 * margin).clone()
    wide[:, :, margin:-margin, margin:-margin] = codes
    return wide


def patch_rows(
    codes: Float[Tensor, "n c h w"], geometry: PatchGeometry, fill: Float[Tensor, " c"]
) -> Float[Tensor, "blocks patch"]:
    """Return the patch of every block as a row, channel by channel and within it row by row, as a convolution's weight.

    Args:
        codes: of a grid that divides into blocks.
        geometry: of the patches.
        fill: what stands for a neighbour beyond the edge, one value a channel.
    """
    return _unfold(padded(codes, fill, geometry.margin), geometry)


@dataclass(frozen=True)
class PatchMoments:
    """The joint moments of source patches and the target blocks they predict: all that a spatial map is fitted from.

    What should stand for neighbours beyond the edge (the mean of the source) is known only at the end of a stream. So the
    moments also hold, for each position of the window, whether it was absent: another fill is then a linear change of
    variables, exact, and takes no second pass. Moments of parts merge into those of the whole, over batches or processes,
    and the codes may have grids of different sizes.
    """

    geometry: PatchGeometry
    fill: Float64[Tensor, " c"]  # stands for absent neighbours in these moments
    paired: PairedMoments  # patches, then absences (one for each border position of the window); target blocks
    codes: int  # how many codes were seen

    @classmethod
    def of(cls, source: Tensor, target: Tensor, geometry: PatchGeometry, *, fill: Tensor | None = None) -> "PatchMoments":
        """Return the moments of paired codes, taken in strips: memory does not grow with codes or grid.

        Args:
            source: codes `n c h w`, on any device.
            target: codes `n t h*up/down w*up/down` of the same images.
            geometry: of the patches.
            fill: what stands for absent neighbours meanwhile; None for the mean of the first codes. Any value gives the
                same fit; one near the mean costs no digits.

        Raises:
            CodeShapeError: codes that are not spatial, or not paired, or whose grids are of another geometry.
            IllPosedError: no codes.
            NonFiniteError: NaN or infinity among the codes; names the first.
        """
        check_paired(source, target)
        check_finite(source, "source code")
        check_finite(target, "target code")
        if geometry_between(source, target, neighbourhood=geometry.neighbourhood) != geometry:
            raise CodeShapeError(
                f"Source codes of {_grid(source)} positions and target codes of {_grid(target)} are not of the geometry of those "
                f"before them ({geometry.down} source positions across a block to {geometry.up}). Give codes of one pair of models."
            )
        if fill is None:
            fill = source[:_CODES].detach().to("cpu", torch.float64).mean(dim=(0, 2, 3))
        total: PairedMoments | None = None
        for rows, blocks in _strips(source, target, geometry, fill):
            part = PairedMoments.of(rows, blocks)
            total = part if total is None else total.merge(part)
        assert total is not None
        return cls(geometry, fill, total, source.shape[0])

    @property
    def channels(self) -> int:
        """Channels of the source."""
        return self.fill.shape[0]

    @property
    def target_channels(self) -> int:
        """Channels of the target."""
        return (self.paired.joint.size - self.paired.source_size) // self.geometry.up**2

    def merge(self, other: "PatchMoments") -> "PatchMoments":
        """Return the moments of both sets of codes together.

        Raises:
            CodeShapeError: patches of another geometry or of other channels.
        """
        mine, theirs = (
            (self.geometry, self.channels, self.target_channels),
            (other.geometry, other.channels, other.target_channels),
        )
        if mine != theirs:
            raise CodeShapeError(
                f"Cannot merge moments of {mine[1]} channels to {mine[2]} ({mine[0]}) with those of {theirs[1]} to {theirs[2]} "
                f"({theirs[0]}); merge those of one pair of spaces."
            )
        merged = self.paired.merge(other.refilled(self.fill).paired)
        return type(self)(self.geometry, self.fill, merged, self.codes + other.codes)

    def refilled(self, fill: Float[Tensor, " c"]) -> "PatchMoments":
        """Return the moments that would have been found with another fill."""
        shift = fill.double() - self.fill
        if not bool(shift.any()):
            return self
        border = self.geometry.border().flatten()
        joint = self.paired.joint
        change = torch.eye(joint.size, dtype=torch.float64)
        area, first = border.numel(), self.channels * border.numel()
        for absent, position in enumerate(border.nonzero().flatten().tolist()):
            change[torch.arange(self.channels) * area + position, first + absent] = shift
        moved = Moments(joint.count, change @ joint.mean, change @ joint.scatter @ change.T)
        return type(self)(self.geometry, fill.double(), PairedMoments(moved, self.paired.source_size), self.codes)

    def pairs(self) -> PairedMoments:
        """Return the joint moments of patches and target blocks, without the absences."""
        patch = self.channels * self.geometry.window**2
        joint = self.paired.joint
        kept = torch.cat([torch.arange(patch), torch.arange(self.paired.source_size, joint.size)])
        return PairedMoments(Moments(joint.count, joint.mean[kept], joint.scatter[kept][:, kept]), patch)

    def source_statistics(self) -> tuple[Float64[Tensor, " c"], Float64[Tensor, " c"]]:
        """Return mean and variance of each source channel over all positions of all codes."""
        area = self.geometry.window**2
        inside = (~self.geometry.border()).flatten()  # the blocks hold each position exactly once
        mean = self.paired.joint.mean[: self.channels * area].view(self.channels, area)[:, inside]
        variance = self.paired.joint.variance()[: self.channels * area].view(self.channels, area)[:, inside]
        return _pooled(mean, variance)

    def target_statistics(self) -> tuple[Float64[Tensor, " t"], Float64[Tensor, " t"]]:
        """Return mean and variance of each target channel over all positions of all codes."""
        target = self.paired.target
        shape = (self.target_channels, self.geometry.up**2)
        return _pooled(target.mean.view(shape), target.variance().view(shape))


def check_paired(source: Tensor, target: Tensor) -> None:
    """Raise unless these are spatial codes, as many of the source as of the target.

    Raises:
        CodeShapeError: they are not.
        IllPosedError: there are none.
    """
    for name, codes in (("source", source), ("target", target)):
        if codes.ndim == 2:
            raise CodeShapeError(
                f"A spatial map needs {name} codes of shape n x channels x rows x columns, got vector codes "
                f"{tuple(codes.shape)}. Use fit_map for vectors; where only one side is spatial, flatten it first."
            )
        if codes.ndim != 4:
            raise CodeShapeError(
                f"A spatial map needs {name} codes of shape n x channels x rows x columns, got {tuple(codes.shape)}."
            )
    if source.shape[0] != target.shape[0]:
        raise CodeShapeError(
            f"Source and target codes must be paired: got {source.shape[0]} and {target.shape[0]} of them. Encode the same images "
            "with both models."
        )
    if 0 in source.shape or 0 in target.shape:
        raise IllPosedError(f"No codes were given: {tuple(source.shape)} and {tuple(target.shape)}. Give those of some images.")


def check_finite(codes: Tensor, name: str) -> None:
    """Raise if a code holds NaN or infinity.

    Raises:
        NonFiniteError: one does; names the first.
    """
    for start in range(0, codes.shape[0], _CODES):
        finite = codes[start : start + _CODES].isfinite().flatten(1).all(dim=1)
        if not bool(finite.all()):
            bad = start + int((~finite).nonzero()[0, 0])
            raise NonFiniteError(f"The {name} #{bad} holds NaN or infinity. Leave that image out, or encode it again.")


def _strips(source: Tensor, target: Tensor, geometry: PatchGeometry, fill: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    down, up, margin = geometry.down, geometry.up, geometry.margin
    high, wide = source.shape[2] // down, source.shape[3] // down  # blocks
    border = geometry.border().flatten()
    width = source.shape[1] * border.numel() + int(border.sum()) + target.shape[1] * up**2
    blocks = max(1, _ELEMENTS // width)
    images, height = max(1, blocks // (high * wide)), min(high, max(1, blocks // wide))
    present = padded(torch.ones(1, 1, *source.shape[2:], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), margin)
    for start in range(0, source.shape[0], images):
        exact = source[start : start + images].detach().to("cpu", torch.float64)
        answers = target[start : start + images].detach().to("cpu", torch.float64)
        wider = padded(exact, fill, margin)
        for top in range(0, high, height):
            end = min(high, top + height)
            strip = slice(top * down, (end - 1) * down + geometry.window)
            absent = 1.0 - _unfold(present[:, :, strip], geometry)[:, border]
            rows = torch.cat([_unfold(wider[:, :, strip], geometry), absent.repeat(exact.shape[0], 1)], dim=1)
            blocks_of = F.pixel_unshuffle(answers[:, :, top * up : end * up], up)
            yield rows, blocks_of.flatten(2).transpose(1, 2).flatten(0, 1)


def _unfold(wide: Tensor, geometry: PatchGeometry) -> Tensor:
    return F.unfold(wide, geometry.window, stride=geometry.down).transpose(1, 2).flatten(0, 1)


def _pooled(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    return mean.mean(dim=1), variance.mean(dim=1) + mean.var(dim=1, correction=0)


def _grid(codes: Tensor) -> str:
    return f"{codes.shape[2]} x {codes.shape[3]}"
