from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from strategies import FACTS, analysis

from schemas.windows import WindowAnalysis


def test_a_window_survives_pickling():
    window = analysis(1)
    copy = pickle.loads(pickle.dumps(window))
    assert copy.span == window.span
    assert np.array_equal(copy.codes, window.codes)
    assert pickle.loads(pickle.dumps(FACTS)) == FACTS


@pytest.mark.parametrize(
    "change", [{"width": 0}, {"fps": 0.0}, {"fps": float("nan")}, {"source_fps": float("inf")}]
)
def test_stream_facts_refuse_impossible_numbers(change: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(FACTS, **change)


@pytest.mark.parametrize("change", [{"num_frames": 0}, {"window_index": -1}, {"start_frame": -1}])
def test_a_span_refuses_impossible_numbers(change: dict[str, int]):
    with pytest.raises(ValueError, match="not a span"):
        dataclasses.replace(analysis(1).span, **change)


def test_a_window_refuses_other_dtypes_and_shapes():
    window = analysis(1)
    with pytest.raises(ValueError, match="float32"):
        WindowAnalysis(
            span=window.span, codes=window.codes, information=window.information.astype(np.float32)
        )
    with pytest.raises(ValueError, match="one non-empty shape"):
        WindowAnalysis(span=window.span, codes=window.codes[:1], information=window.information)
