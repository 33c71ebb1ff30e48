"""From a checkpoint to ONNX, INT8 and engines, with the accuracy measured at every step."""
