"""Differences carried through random networks, against full inference in float64."""

import pytest

pytest.importorskip("hypothesis")

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from programs import programs
from truth import Truth, compare, enliven, everywhere, network_of

from fc7.engine.attribution.occlusion import Occlusion


# Shrinking takes minutes here, and the note says all that a failure needs.
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_any_network_on_any_grid(data: st.DataObject) -> None:
    size = data.draw(st.integers(9, 26)), data.draw(st.integers(9, 26))
    window = data.draw(st.integers(1, min(size)))
    stride = data.draw(st.integers(max(1, window // 2), 12))
    fill = data.draw(st.sampled_from([None, 0.0, (0.9, 0.1, 0.6)]))
    network = network_of(enliven(data.draw(programs(size)), size), size)
    truth = Truth.of(network)
    try:
        occlusion = Occlusion(network, window, stride, fill, "logit", size)
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
        places = everywhere(occlusion, 2)
        compare(occlusion, truth, network, images, places, window, stride, fill).check(proves=0)
    except Exception as error:
        error.add_note(repr((size, window, stride, fill)) + "\n" + network.model.extra_repr())
        raise
