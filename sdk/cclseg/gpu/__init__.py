"""The GPU: its driver, memory and streams, kernels compiled on first use, and arrays of others.

Nothing here needs a CUDA library for Python, and each of them may be in use: see docs/gpu.md.
"""
