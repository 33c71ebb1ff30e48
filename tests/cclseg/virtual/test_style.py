import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cclseg.errors import InputError
from cclseg.virtual import SceneStyle, random_style


@given(st.integers(0, 10_000))
def test_every_random_style_is_a_valid_style(seed):
    assert isinstance(random_style(np.random.default_rng(seed)), SceneStyle)


def test_desert_share_decides_the_climate():
    rng = np.random.default_rng(0)
    assert {random_style(rng, desert_share=1.0).climate for _ in range(20)} == {"desert"}
    assert {random_style(rng, desert_share=0.0).climate for _ in range(20)} == {"temperate"}


def test_a_misspelt_choice_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"water is 'coastal'; did you mean 'coast'\?"):
        SceneStyle(water="coastal")


def test_a_number_out_of_range_is_refused_with_the_range():
    with pytest.raises(InputError, match=r"haze is 0\.9; expected a number in 0\.0\.\.0\.6"):
        SceneStyle(haze=0.9)
