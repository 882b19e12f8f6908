from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import SpaceConfig
from pipelines.geometry import Orientation, crop_box, output_size, pixel_aspect

ONE = 1 << 16
UPRIGHT = Orientation()
TURNED = Orientation(transpose=True, flip_x=True)
# a b c d of the eight display matrices that turn and mirror by right angles.
RIGHT_ANGLES = [
    (1, 0, 0, 1),
    (0, 1, -1, 0),
    (-1, 0, 0, -1),
    (0, -1, 1, 0),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, -1, 0),
]
sizes = st.integers(1, 8192)
aspects = st.fractions(Fraction(1, 120), 120, max_denominator=1000)
orientations = st.sampled_from([UPRIGHT, TURNED])


def matrix(a: float, b: float, c: float, d: float) -> list[int]:
    return [int(a * ONE), int(b * ONE), 0, int(c * ONE), int(d * ONE), 0, 0, 0, 1 << 30]


@pytest.mark.parametrize("angles", RIGHT_ANGLES)
def test_each_pixel_is_shown_where_the_display_matrix_sends_it(angles):
    a, b, c, d = angles
    image_HWC = np.arange(2 * 3 * 1, dtype=np.uint8).reshape(2, 3, 1)
    orientation = Orientation.from_display_matrix(matrix(*angles))
    shown = orientation.apply(image_HWC)
    # Points relative to the centre, doubled to stay integers.
    for y in range(2):
        for x in range(3):
            px, py = 2 * x - 2, 2 * y - 1
            qx, qy = a * px + c * py, b * px + d * py
            height, width = shown.shape[:2]
            assert shown[(qy + height - 1) // 2, (qx + width - 1) // 2, 0] == image_HWC[y, x, 0]
    assert orientation.exact


def test_an_angle_in_between_goes_to_the_nearest_right_angle_and_says_so():
    cos, sin = np.cos(np.radians(70)), np.sin(np.radians(70))
    orientation = Orientation.from_display_matrix(matrix(cos, sin, -sin, cos))
    assert orientation == Orientation(transpose=True, flip_x=True, exact=False)


def test_crop_gives_a_square_of_the_asked_size():
    space = SpaceConfig(mode="crop", size=256)
    size = output_size(1920, 1080, aspect=Fraction(1), orientation=UPRIGHT, space=space)
    box = crop_box(1920, 1080, aspect=Fraction(1), orientation=UPRIGHT, output=size)
    assert size == (256, 256)
    assert (box.x, box.y, box.width, box.height) == (420, 0, 1080, 1080)


def test_keep_leaves_the_aspect_and_follows_the_rotation():
    space = SpaceConfig(mode="keep", size=256)
    upright = output_size(1920, 1080, aspect=Fraction(1), orientation=UPRIGHT, space=space)
    turned = output_size(1920, 1080, aspect=Fraction(1), orientation=TURNED, space=space)
    assert upright == (448, 256)
    assert turned == (256, 448)


def test_wide_pixels_count_as_wide():
    # 16 x 1080 coded with pixels of 120:1 is shown as 16:9.
    space = SpaceConfig(mode="keep", size=64)
    size = output_size(16, 1080, aspect=Fraction(120), orientation=UPRIGHT, space=space)
    assert size == (112, 64)


@pytest.mark.parametrize("value", [None, Fraction(0), Fraction(-1), Fraction(1, 10**6)])
def test_a_pixel_aspect_that_makes_no_sense_is_square(value):
    assert pixel_aspect(value) == 1


@given(sizes, sizes, aspects, orientations, st.sampled_from(["crop", "keep"]))
def test_the_part_lies_in_the_frame_in_its_middle_and_on_the_chroma_grid(
    width, height, aspect, orientation, mode
):
    space = SpaceConfig(mode=mode, size=64)
    output = output_size(width, height, aspect=aspect, orientation=orientation, space=space)
    box = crop_box(width, height, aspect=aspect, orientation=orientation, output=output)
    assert min(output) == 64
    assert output[0] % 16 == output[1] % 16 == 0
    assert box.width >= 1
    assert box.height >= 1
    assert box.x % 2 == box.y % 2 == 0
    for start, length, whole in ((box.x, box.width, width), (box.y, box.height, height)):
        assert start >= 0
        assert start + length <= whole
        assert abs((whole - length) - 2 * start) <= 3
    assert box.width == width or box.height == height


@given(st.integers(64, 8192), st.integers(64, 8192), orientations)
def test_square_pixels_stay_square_within_half_a_source_pixel(width, height, orientation):
    space = SpaceConfig(mode="keep", size=64)
    one = Fraction(1)
    output = output_size(width, height, aspect=one, orientation=orientation, space=space)
    box = crop_box(width, height, aspect=one, orientation=orientation, output=output)
    across, down = orientation.turn(output)
    wide = abs(box.width - box.height * across / down)
    high = abs(box.height - box.width * down / across)
    assert min(wide, high) <= 0.5
