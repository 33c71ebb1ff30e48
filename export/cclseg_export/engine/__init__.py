"""Builds engines on the device that runs them; needs numpy and TensorRT alone."""
