"""The torch operator: the definition's numbers, gradients, and what torch asks of an operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from correlation_contract import CorrelationContract, normal_maps

from cclseg.correlation import local_correlation as definition
from cclseg_trainer.ops import expanded, local_correlation


def in_torch(a, b, **options):
    maps = (torch.from_numpy(np.require(m, requirements="CA")) for m in (a, b))
    return local_correlation(*maps, **options).numpy()


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other on tiny maps take longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TestFloat32(CorrelationContract):
    def run(self, a, b, **options):
        return in_torch(a, b, **options)


class TestFloat64(CorrelationContract):
    dtype = np.float64
    rtol, atol = 1e-12, 1e-13

    def run(self, a, b, **options):
        return in_torch(a, b, **options)


class TestFloat16(CorrelationContract):
    """Summed in float32, so only the result is rounded: by 2^-11 of its size."""

    dtype = np.float16
    rtol, atol = 1e-3, 1e-6

    def run(self, a, b, **options):
        return in_torch(a, b, **options)


class TestExpanded(CorrelationContract):
    def run(self, a, b, *, radius, dilation=1, groups=1, normalize=False):
        in_torch(a, b, radius=radius, dilation=dilation, groups=groups)  # checks the arguments
        maps = (torch.from_numpy(np.require(m, requirements="CA")) for m in (a, b))
        return expanded(*maps, radius, dilation, groups, normalize).numpy()


def leaves(shape=(2, 4, 3, 5), dtype=torch.float64):
    return tuple(torch.from_numpy(m.astype(np.float64)).to(dtype) for m in normal_maps(shape))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("window", [(0, 1), (1, 1), (2, 3)])
def test_gradients_match_finite_differences(window, normalize):
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 4, 3, 4, dtype=torch.float64).requires_grad_().unbind(0)
    radius, dilation = window

    def correlation(u, v):
        return local_correlation(
            u, v, radius=radius, dilation=dilation, groups=2, normalize=normalize
        )

    assert torch.autograd.gradcheck(correlation, (a, b))


@pytest.mark.parametrize("metric", ["ssd", "sad"])
@pytest.mark.parametrize("window", [(0, 1), (1, 1), (2, 3)])
def test_differences_follow_the_definition(metric, window):
    a, b = leaves((2, 6, 5, 7))
    options = {"radius": window[0], "dilation": window[1], "groups": 2, "metric": metric}
    found = local_correlation(a, b, **options)
    expected = definition(a.numpy(), b.numpy(), **options)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("metric", ["ssd", "sad"])
def test_gradients_of_differences_match_finite_ones(metric):
    a, b = (m.requires_grad_() for m in leaves((1, 4, 3, 4)))
    assert torch.autograd.gradcheck(
        lambda u, v: local_correlation(u, v, radius=1, groups=2, metric=metric), (a, b)
    )


def test_normalised_differences_are_refused():
    a, _ = leaves((1, 4, 3, 4))
    with pytest.raises(ValueError, match="expected it with 'ncc'"):
        local_correlation(a, a, radius=1, metric="sad", normalize=True)


def test_gradient_by_one_map_used_twice():
    torch.manual_seed(0)
    a = torch.randn(1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda u: local_correlation(u, u, radius=1, normalize=True), (a,)
    )


def test_gradient_at_zero_vectors_is_finite():
    a = torch.zeros(1, 4, 3, 3, requires_grad=True)
    b = torch.ones(1, 4, 3, 3, requires_grad=True)
    local_correlation(a, b, radius=1, normalize=True).sum().backward()
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(b.grad).all()


@pytest.mark.parametrize("normalize", [False, True])
def test_torch_finds_no_fault_in_the_operator(normalize):
    """Checks the schema, the fake kernel, autograd's registration and tracing."""
    a, b = (m.requires_grad_() for m in leaves(dtype=torch.float32))
    torch.library.opcheck(torch.ops.cclseg.local_correlation.default, (a, b, 1, 2, 2, normalize))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_equals_eager_forward_and_backward(layout):
    a, b = (m.to(memory_format=layout) for m in leaves((2, 4, 7, 9), torch.float32))

    def loss(u, v):
        return (local_correlation(u * 2, v, radius=1, normalize=True) ** 2).sum()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        u, v = (m.clone().requires_grad_() for m in (a, b))
        value = function(u, v)
        value.backward()
        results.append((value, u.grad, v.grad))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_autocast_computes_in_float32():
    a, b = leaves(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        out = local_correlation(a, b, radius=1)
    expected = local_correlation(a.float(), b.float(), radius=1)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)


def test_traces_to_one_node_with_a_free_batch():
    class Correlate(torch.nn.Module):
        def forward(self, a, b):
            return local_correlation(a, b, radius=1, normalize=True)

    free = {0: torch.export.Dim("N", min=1, max=8)}
    program = torch.export.export(Correlate(), leaves(), dynamic_shapes=(free, free))
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.cclseg.local_correlation.default) == 1
    a, b = leaves((5, 4, 3, 5))
    torch.testing.assert_close(program.module()(a, b), Correlate()(a, b))


def live_bytes_at_most(run):
    """Runs a function and returns the largest sum of live tensor memory that torch allocated."""
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.parametrize("normalize", [False, True])
def test_memory_is_a_few_times_input_and_output(normalize):
    """A form that unfolds b would need 81 times the input here."""
    a, b = (m.requires_grad_() for m in leaves((1, 64, 48, 48), torch.float32))

    def step():
        local_correlation(a, b, radius=4, normalize=normalize).sum().backward()

    outside = 81 * 48 * 48 * 4
    inside = 64 * 48 * 48 * 4
    assert outside <= live_bytes_at_most(step) <= 4 * (2 * inside + outside)


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


def test_maps_of_different_types_are_refused():
    with pytest.raises(ValueError, match="one floating type"):
        local_correlation(torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 3, 3).double(), radius=1)
