import numpy as np
import pytest

from cclseg.errors import InputError
from cclseg.virtual import CLASS_NAMES, CropSampler

RNG = np.random.default_rng


def small_sampler(**options):
    return CropSampler(**{"seed": 3, "worlds": 2, "world_px": 384, **options})


@pytest.mark.parametrize("size_hw", [(1, 1), (64, 96), (513, 257)])
def test_crops_have_the_size_asked_for(size_hw):
    image, mask = small_sampler().sample(RNG(0), size_hw)
    assert image.shape == (*size_hw, 3)
    assert mask.shape == size_hw
    assert image.dtype == mask.dtype == np.uint8
    assert mask.max() < len(CLASS_NAMES)


def test_a_crop_depends_on_the_generator_alone_and_not_on_what_came_before():
    used, fresh = small_sampler(), small_sampler()
    for seed in range(5):
        used.sample(RNG(seed), (40, 40))
    for theirs, ours in zip(
        fresh.sample(RNG(9), (64, 64)), used.sample(RNG(9), (64, 64)), strict=True
    ):
        np.testing.assert_array_equal(theirs, ours)


def test_crops_differ_and_together_show_every_class():
    sampler, rng = CropSampler(seed=0, worlds=3, world_px=768), RNG(1)
    crops = [sampler.sample(rng, (160, 160)) for _ in range(24)]
    assert len({image.tobytes() for image, _ in crops}) == 24
    assert set(np.unique([mask for _, mask in crops])) == set(range(len(CLASS_NAMES)))


def test_no_size_is_refused():
    with pytest.raises(InputError, match="expected a positive height and width"):
        small_sampler().sample(RNG(0), (0, 10))
