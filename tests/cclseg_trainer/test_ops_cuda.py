"""The fused correlation of CUDA tensors against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from correlation_contract import CorrelationContract

from cclseg.errors import InputError
from cclseg_trainer import ops_cuda


def test_maps_on_the_cpu_are_refused():
    a = torch.zeros(1, 4, 3, 3)
    assert not ops_cuda.takes(a)
    with pytest.raises(InputError, match="expected two alike, float32 or float16, on a CUDA"):
        ops_cuda.correlate(a, a, radius=1, dilation=1, groups=1, normalize=False)


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
