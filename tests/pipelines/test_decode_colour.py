"""Colours against float arithmetic: swscale's defaults are two levels too dark, ours must not be.

Y, U, V: planes of one frame, [H, W].
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from decoding_helpers import decode_here, request_for
from videos import write_video

from pipelines.geometry import Box
from pipelines.rgb import RgbGraph

BT709, BT601, BT2020, UNTAGGED = 1, 6, 9, 2
LIMITED, FULL = 1, 2
WEIGHTS = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114), BT2020: (0.2627, 0.0593)}
SIDE = 256
BLOCK = 32


def patches(low, high, seed):
    values = np.random.default_rng(seed).uniform(low, high, (SIDE // BLOCK, SIDE // BLOCK))
    return np.kron(values, np.ones((BLOCK, BLOCK)))


def expected_rgb(planes, matrix, color_range, bits):
    """The definition of ITU-R BT.601/709/2020, in float64, 0..255."""
    red, blue = WEIGHTS[matrix]
    unit = 2 ** (bits - 8)
    luma, cb, cr = planes
    if color_range == LIMITED:
        luma, scale = (luma - 16 * unit) / (219 * unit), 224 * unit
    else:
        luma, scale = luma / (2**bits - 1), 2**bits - 1
    cb, cr = (cb - 128 * unit) / scale, (cr - 128 * unit) / scale
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.stack([r, g, b], -1) * 255, 0, 255)


def frame_of(planes, pix_fmt, matrix, color_range):
    frame = av.VideoFrame(SIDE, SIDE, pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=False):
        small = values if plane.width == SIDE else values[::2, ::2]
        dtype = np.uint8 if plane.line_size // SIDE < 2 and "le" not in pix_fmt else np.uint16
        rows = np.zeros((plane.height, plane.line_size // dtype().itemsize), dtype)
        rows[:, : plane.width] = small
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = matrix, color_range
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return frame


def middles(image_HWC):
    """One pixel in the middle of each patch, at half size."""
    half = BLOCK // 2
    return image_HWC[half // 2 :: half, half // 2 :: half].astype(np.float64)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "gray"])
@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
def test_colours_agree_with_float_arithmetic(pix_fmt, matrix, color_range):
    bits = 10 if "10" in pix_fmt else 8
    unit = 2 ** (bits - 8)
    planes = [
        np.round(patches(low, high, seed) * unit)
        for seed, (low, high) in enumerate([(60, 190), (100, 156), (100, 156)])
    ]
    frame = frame_of(planes, pix_fmt, matrix, color_range)
    box = Box(x=0, y=0, width=SIDE, height=SIDE)
    image_HWC = RgbGraph(frame, box=box, size=(SIDE // 2, SIDE // 2)).convert(frame)
    if pix_fmt == "gray":
        planes[1:] = [np.full_like(planes[0], 128.0)] * 2
    expected = expected_rgb(planes, matrix, color_range, bits)[::2, ::2]
    error = middles(image_HWC) - middles(expected)
    # swscale has one shift too few for 10-bit full range: half a level too bright.
    assert abs(error.mean()) < (0.5 if bits > 8 and color_range == FULL else 0.15)
    assert np.abs(error).max() < 1.3


@pytest.mark.parametrize(
    ("side", "tag", "really"),
    [
        (64, (UNTAGGED, LIMITED), BT601),
        (720, (UNTAGGED, LIMITED), BT709),
        (64, (BT709, LIMITED), BT709),
        (720, (BT601, FULL), BT601),
    ],
)
def test_tags_are_honoured_and_untagged_video_goes_by_its_size(tmp_path, side, tag, really):
    colour = np.array([180, 60, 90], np.uint8)
    red, blue = WEIGHTS[really]
    r, g, b = colour / 255.0
    luma = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)
    if tag[1] == LIMITED:
        coded = 16 + 219 * luma, 128 + 224 * cb, 128 + 224 * cr
    else:
        coded = 255 * luma, 128 + 255 * cb, 128 + 255 * cr
    frame = av.VideoFrame(side, side, "yuv444p")
    for plane, value in zip(frame.planes, coded, strict=True):
        plane.update(bytes([round(value)]) * plane.buffer_size)
    path = tmp_path / "tagged.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tag
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    windows, _ = decode_here(request_for(path, frames=1))
    seen = windows[0].frames_THWC[0].reshape(-1, 3).mean(axis=0)
    assert np.abs(seen - colour).max() < 1.5


def test_alpha_is_ignored_and_the_stored_colour_kept(tmp_path):
    path = tmp_path / "alpha.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgra"
        image = np.zeros((32, 32, 4), np.uint8)
        image[..., 2] = 200  # red, fully transparent
        frame = av.VideoFrame.from_ndarray(image, "bgra")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    windows, _ = decode_here(request_for(path, frames=1))
    assert windows[0].frames_THWC[0, 30, 30].tolist() == [200, 0, 0]


def test_scaling_adds_no_bias_to_a_real_picture(tmp_path):
    ramp = np.linspace(20, 235, 512)[None, :, None].repeat(512, 0).repeat(3, 2).astype(np.uint8)
    path = write_video(tmp_path / "ramp.mkv", [ramp], codec="ffv1", pix_fmt="bgra")
    windows, _ = decode_here(request_for(path, frames=1, side=128))
    truth = ramp.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    error = windows[0].frames_THWC[0].astype(float) - truth
    assert abs(error.mean()) < 0.1
    assert np.abs(error).max() <= 2
