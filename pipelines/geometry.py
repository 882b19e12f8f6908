"""Which part of a frame the network sees, at which size, and which way up: integers only.

All crops and scales are planned in the orientation in which the picture is *coded*, because that is
what the filter graph works on; turning comes last, on the small result. Sizes called *output* are
those after turning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pipelines.config import SpaceConfig

__all__ = ["Box", "Orientation", "crop_box", "output_size", "patch_box", "pixel_aspect"]

_BLOCK = 16
"""Both output sides are multiples of this: the network's spatial compression."""

_WIDEST_PIXEL = 1000
"""A pixel aspect beyond this (or its inverse) is taken for garbage; 120 occurs in real files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle of coded pixels, x to the right, y downwards."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """One of the eight ways a picture can lie: transposed or not, then mirrored or not.

    Attributes:
        transpose: Swap rows and columns, before mirroring.
        flip_x: Mirror left and right.
        flip_y: Mirror top and bottom.
        exact: False if the container asked for an angle in between, and this is the nearest.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False
    exact: bool = True

    @classmethod
    def from_display_matrix(cls, matrix: Sequence[int]) -> Orientation:
        """The nearest orientation to a display matrix.

        Args:
            matrix: Nine integers a b u, c d v, x y w; a point (x, y) is shown at
                (a x + c y, b x + d y). A mirrored picture has no angle, so the angle alone
                (which is what most readers apply) would turn it upside down.
        """
        a, b, _, c, d = matrix[:5]
        transpose = abs(b) + abs(c) > abs(a) + abs(d)
        across, down, rest = (c, b, (a, d)) if transpose else (a, d, (b, c))
        # One part in a hundred: files carry rounded sines and cosines.
        exact = max(abs(rest[0]), abs(rest[1])) * 100 <= max(abs(across), abs(down), 1)
        return cls(transpose=transpose, flip_x=across < 0, flip_y=down < 0, exact=exact)

    def apply(self, image_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A view of the picture as it should be shown (no copy)."""
        if self.transpose:
            image_HWC = image_HWC.swapaxes(0, 1)
        if self.flip_x:
            image_HWC = image_HWC[:, ::-1]
        if self.flip_y:
            image_HWC = image_HWC[::-1]
        return image_HWC

    def turn(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) before turning to after, or back: the same swap."""
        return (size[1], size[0]) if self.transpose else size


def pixel_aspect(value: Fraction | None) -> Fraction:
    """Width over height of one coded pixel; 1 where the file says nothing or nonsense."""
    if value is None or not Fraction(1, _WIDEST_PIXEL) <= value <= _WIDEST_PIXEL:
        return Fraction(1)
    return Fraction(value)


def output_size(
    width: int, height: int, *, aspect: Fraction, orientation: Orientation, space: SpaceConfig
) -> tuple[int, int]:
    """(width, height) of what the network sees, in square pixels.

    Args:
        width: Coded columns, >= 1.
        height: Coded rows, >= 1.
        aspect: Width over height of one coded pixel, see `pixel_aspect`.
        orientation: How the picture is turned for display.
        space: ``crop``: a square of ``size``. ``keep``: the short side is ``size``, the long side
            is cropped to a multiple of 16 (never below ``size``).
    """
    if space.mode == "crop":
        return space.size, space.size
    shown_width, shown_height = width * aspect, Fraction(height)
    ratio = max(shown_width, shown_height) / min(shown_width, shown_height)
    long = max(round(space.size * ratio) // _BLOCK * _BLOCK, space.size)
    coded = (long, space.size) if shown_width >= shown_height else (space.size, long)
    return orientation.turn(coded)


def crop_box(
    width: int,
    height: int,
    *,
    aspect: Fraction,
    orientation: Orientation,
    output: tuple[int, int],
    chroma_grid: tuple[int, int] = (2, 2),
) -> Box:
    """The largest centred part of a coded frame that has the shape of the output.

    Also right for a frame whose size differs from the first one's: the output stays, the part
    follows.

    Args:
        width: Coded columns, >= 1.
        height: Coded rows, >= 1.
        aspect: Width over height of one coded pixel.
        orientation: How the picture is turned for display.
        output: (width, height) after turning.
        chroma_grid: Luma samples per chroma sample, across and down. The corner lies on this grid,
            so that colour does not shift against brightness.
    """
    out_width, out_height = orientation.turn(output)
    part_width = round(height * out_width / (out_height * aspect))
    if part_width <= width:
        part = max(part_width, 1), height
    else:
        part = width, min(max(round(width * aspect * out_height / out_width), 1), height)
    x = (width - part[0]) // 2 // chroma_grid[0] * chroma_grid[0]
    y = (height - part[1]) // 2 // chroma_grid[1] * chroma_grid[1]
    return Box(x=x, y=y, width=part[0], height=part[1])


def patch_box(
    width: int,
    height: int,
    *,
    aspect: Fraction,
    side: int,
    place: tuple[float, float],
    chroma_grid: tuple[int, int] = (2, 2),
) -> Box:
    """A part of a coded frame that is shown as a square of ``side`` rows, or the largest there is.

    Args:
        width: Coded columns, >= 1.
        height: Coded rows, >= 1.
        aspect: Width over height of one coded pixel.
        side: Coded rows wanted, >= 1.
        place: Across and down, in [0, 1): from the first to the last place where it fits.
        chroma_grid: As for `crop_box`.
    """
    rows = min(Fraction(side), Fraction(height), width * aspect)
    part = min(max(round(rows / aspect), 1), width), min(max(round(rows), 1), height)
    x, y = (
        int(share * (whole - taken + 1)) // grid * grid
        for share, whole, taken, grid in zip(place, (width, height), part, chroma_grid, strict=True)
    )
    return Box(x=x, y=y, width=part[0], height=part[1])
