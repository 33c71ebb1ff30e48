"""The fused correlation of CUDA tensors: the torch operator's choice, and the definition.

The choice and what is handed to the kernel are tested without a GPU: there the kernel is emulated,
on maps in the CPU's memory.
"""

from __future__ import annotations

import ctypes

import cuda_emulation
import numpy as np
import pytest
import torch
from correlation_contract import CorrelationContract, normal_maps
from native_libraries import built_once

from cclseg.correlation import local_correlation
from cclseg.errors import InputError
from cclseg_trainer import ops, ops_cuda


def test_the_operator_has_a_kernel_of_its_own_for_cuda_tensors():
    name = "cclseg::local_correlation"
    assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")
    assert not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU")
    assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeExplicitAutograd")


def test_maps_on_the_cpu_are_not_for_the_kernel():
    a = torch.zeros(1, 4, 3, 3)
    assert not ops_cuda.takes(a)
    with pytest.raises(InputError, match="expects float32 or float16 on a CUDA device"):
        ops_cuda.correlate(a, a, radius=1, dilation=1, groups=1, normalize=False)


@pytest.mark.parametrize(
    "other",
    [torch.zeros(1, 4, 3, 4), torch.zeros(1, 4, 3, 3).double(), torch.zeros(4, 3, 3),
     torch.zeros(1, 4, 3, 3, device="meta")],
    ids=["shape", "type", "axes", "device"],
)  # fmt: skip
def test_maps_that_are_no_pair_are_refused_wherever_they_come_in(other):
    a = torch.zeros(1, 4, 3, 3)
    with pytest.raises(InputError, match="expected one shape"):
        ops.local_correlation(a, other, radius=1)
    with pytest.raises(InputError, match="expected one shape"):
        ops_cuda.correlate(a, other, radius=1, dilation=1, groups=1, normalize=False)


class TestEmulatedKernel:
    @pytest.fixture(autouse=True)
    def _emulate(self, monkeypatch):
        if not cuda_emulation.has_compiler():
            pytest.skip("no g++ to compile the emulation")
        library = ctypes.CDLL(str(built_once("emulation", cuda_emulation.build)))
        self.launches = []

        def queue(what, a, b, out):
            assert a.is_contiguous()
            assert b.is_contiguous()
            self.launches.append(what)
            cuda_emulation.launch(library, what, (a.data_ptr(), b.data_ptr(), out.data_ptr()))

        monkeypatch.setattr(ops_cuda, "_queue", queue)
        monkeypatch.setattr(ops_cuda, "takes", lambda a: a.dtype in ops_cuda._TYPES)

    def on_gpu(self, a, b, **options):
        names = ("radius", "dilation", "groups", "normalize")
        values = (
            options.get(name, default) for name, default in zip(names, (1, 1, 1, 0), strict=True)
        )
        return ops._correlate_on_gpu(a, b, *values)

    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    @pytest.mark.parametrize(
        "options",
        [{"radius": 0}, {"radius": 3, "normalize": True},
         {"radius": 2, "dilation": 3, "groups": 5, "normalize": True}],
        ids=str,
    )  # fmt: skip
    def test_gives_the_definition_for_strided_maps(self, dtype, options):
        a, b = normal_maps((2, 10, 7, 26), dtype)
        left, right = (torch.from_numpy(maps)[..., ::2] for maps in (a, b))
        found = self.on_gpu(left, right, **options)
        expected = local_correlation(a[..., ::2], b[..., ::2], **options)
        assert len(self.launches) == 1
        assert found.numpy().dtype == dtype
        rtol = 1e-5 if dtype == np.float32 else 2**-10  # the last step rounds to 24 or 11 bits
        np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=4e-6)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_is_not_chosen_for_types_that_it_does_not_know(self, dtype):
        a, b = (torch.from_numpy(maps).to(dtype) for maps in normal_maps((1, 4, 5, 6)))
        found = self.on_gpu(a, b, radius=1, normalize=True)
        assert not self.launches
        torch.testing.assert_close(found, ops.local_correlation(a, b, radius=1, normalize=True))


class CudaContract(CorrelationContract):
    @pytest.fixture(autouse=True)
    def _device(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")

    def run(self, a, b, *, radius, dilation=1, groups=1, normalize=False):
        left, right = (torch.from_numpy(np.ascontiguousarray(maps)).cuda() for maps in (a, b))
        out = ops_cuda.correlate(
            left, right, radius=radius, dilation=dilation, groups=groups, normalize=normalize
        )
        return out.cpu().numpy()


@pytest.mark.gpu
class TestFloat32(CudaContract):
    pass


@pytest.mark.gpu
class TestFloat16(CudaContract):
    # Sums are those of float32; the last step rounds to 11 bits, the definition's too.
    dtype, rtol = np.float16, 2**-10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("normalize", [False, True])
def test_value_and_gradients_on_a_gpu_are_those_on_the_cpu(normalize):
    maps = [torch.from_numpy(m) for m in normal_maps((2, 8, 9, 13))]
    results = []
    for device in ("cpu", "cuda"):
        a, b = (m.to(device).requires_grad_() for m in maps)
        out = ops.local_correlation(a, b, radius=2, groups=2, normalize=normalize)
        (out**2).sum().backward()
        results.append([t.cpu() for t in (out.detach(), a.grad, b.grad)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=1e-5)
