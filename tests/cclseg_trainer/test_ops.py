"""The local correlation against naive loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cclseg_trainer.ops import local_correlation


def naive(a, b, *, radius, dilation, groups, normalize):
    """The definition, one place and one lag at a time."""
    batch, channels, height, width = a.shape
    depth, side = channels // groups, 2 * radius + 1
    out = np.zeros((batch, groups * side * side, height, width))
    for n, g, dy, dx, y, x in np.ndindex(batch, groups, side, side, height, width):
        sy, sx = y + (dy - radius) * dilation, x + (dx - radius) * dilation
        inside = 0 <= sy < height and 0 <= sx < width
        part = slice(g * depth, (g + 1) * depth)
        u = a[n, part, y, x]
        v = b[n, part, sy, sx] if inside else np.zeros(depth)
        scale = max(np.linalg.norm(u) * np.linalg.norm(v), 1e-6) if normalize else depth
        out[n, g * side * side + dy * side + dx, y, x] = u @ v / scale
    return out


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (9, 8)])
@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("normalize", [False, True])
def test_matches_the_definition(size, radius, dilation, groups, normalize):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2, 6, *size))
    a[0, :, 0, 0] = 0  # a zero vector
    options = {"radius": radius, "dilation": dilation, "groups": groups, "normalize": normalize}
    found = local_correlation(torch.from_numpy(a), torch.from_numpy(b), **options).numpy()
    np.testing.assert_allclose(found, naive(a, b, **options), rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_gradients_match_finite_differences(normalize):
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 4, 3, 5, dtype=torch.float64).requires_grad_().unbind(0)

    def correlation(u, v):
        return local_correlation(u, v, radius=1, groups=2, normalize=normalize)

    assert torch.autograd.gradcheck(correlation, (a, b))


def test_gradient_at_zero_vectors_is_finite():
    a = torch.zeros(1, 4, 3, 3, requires_grad=True)
    local_correlation(a, a, radius=1, normalize=True).sum().backward()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        (((1, 4, 3, 3), (1, 4, 3, 4)), {"radius": 1}),
        (((1, 4, 3, 3), (1, 4, 3, 3)), {"radius": -1}),
        (((1, 4, 3, 3), (1, 4, 3, 3)), {"radius": 1, "groups": 3}),
        (((4, 3, 3), (4, 3, 3)), {"radius": 1}),
    ],
)
def test_misfits_are_refused(shapes, options):
    a, b = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="expected"):
        local_correlation(a, b, **options)
