"""Rivals with a backbone or branches of their own: what all networks must do."""

from __future__ import annotations

from network_contract import NetworkContract


class TestPIDNet(NetworkContract):
    variant, stride = "pidnet-s", 8
    coarse_stride, edge_strides = 8, (8,)


class TestSegFormer(NetworkContract):
    variant, stride = "segformer-b0", 4
    coarse_stride, edge_strides = 32, (4, 8, 16)


class TestUNetFormer(NetworkContract):
    variant, stride = "unetformer-lite0", 4
    coarse_stride, edge_strides = 32, (4, 8, 16)


class TestBiSeNetV2(NetworkContract):
    variant, stride = "bisenetv2", 8
    coarse_stride, edge_strides = 32, (8, 8)


class TestHRNet(NetworkContract):
    variant, stride = "hrnet-small", 4
    coarse_stride, edge_strides = 32, (4, 8, 16)


class TestGatedSCNN(NetworkContract):
    variant, stride = "gscnn-lite0", 4
    coarse_stride, edge_strides = 32, (4,)


class TestSPANet(NetworkContract):
    variant, stride = "spanet-lite0", 4
    coarse_stride, edge_strides = 32, (4, 8, 16)
