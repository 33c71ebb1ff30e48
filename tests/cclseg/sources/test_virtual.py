import numpy as np
import pytest
from contracts import SourceContract

from cclseg.errors import InputError, SourceError
from cclseg.sources import open_source
from cclseg.virtual import VirtualFlight


@pytest.fixture(scope="module")
def opened():
    return open_source("virtual:seed=3,frames=4,size=96x64,gsd_m=1.0")


class TestContract(SourceContract):
    @pytest.fixture
    def source(self, opened):
        return opened


def test_a_text_opens_the_flight_it_describes():
    with open_source("virtual:seed=7,frames=2,size=80x64,gsd_m=1.2,climate=temperate") as source:
        frames = list(source)
    assert (source.total, source.name) == (2, "virtual_7")
    assert [frame.name for frame in frames] == ["frame_000000", "frame_000001"]
    assert frames[0].size_hw == (64, 80)
    assert source.flight.world.style.climate == "temperate"
    np.testing.assert_array_equal(frames[1].image, source.flight.frame(1).image)


def test_no_options_are_the_defaults_of_a_flight():
    source = open_source("virtual:")
    assert source.flight.seed == 0
    assert source.total == VirtualFlight(0).frames
    assert source.fps == pytest.approx(1 / VirtualFlight(0).interval_s)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("virtual:sed=7", "unknown option 'sed'; did you mean 'seed'"),
        ("virtual:seed", "'seed' has no value; expected name=value"),
        ("virtual:frames=many", "frames is 'many'; expected a whole number"),
        ("virtual:size=512", "size is '512'; expected WIDTHxHEIGHT"),
    ],
)
def test_what_cannot_be_read_is_refused_with_advice(text, message):
    with pytest.raises(SourceError, match=message):
        open_source(text)


def test_a_value_out_of_range_is_an_input_error():
    with pytest.raises(InputError, match="frames is 0"):
        open_source("virtual:frames=0")
