"""A checkpoint becomes an ONNX file that carries everything needed to run it."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxslim
import torch

from cclseg.errors import BackendError
from cclseg.files import replacing
from cclseg_trainer.models.blocks import merged_for_inference

from .operator import attach_function, decomposition, translation_table

if TYPE_CHECKING:
    from pathlib import Path

    from cclseg.spec import ModelSpec
    from cclseg_trainer.checkpoint import Checkpoint

INPUT_NAME = "images"
OUTPUT_NAME = "logits"
OPSET = 18
_PRODUCER = "cclseg"


def to_onnx(
    checkpoint: Checkpoint,
    *,
    input_hw: tuple[int, int] | None = None,
    keep_operator: bool = False,
) -> onnx.ModelProto:
    """Converts a checkpoint to a checked and simplified fp32 model.

    Multi-scale depthwise kernels are merged and batch norms folded first; the training heads are
    not part of the graph.

    Args:
        checkpoint: What the trainer wrote.
        input_hw: Height and width of the input, multiples of 32; None for the spec's.
        keep_operator: Leave each correlation over a window one node for compiled kernels, with a
            body of standard operators beside it; else standard operators take its place.

    Returns:
        Input ``images`` (N, C, H, W) and output ``logits`` (N, K, H/4, W/4), both float32, N free;
        the spec stands in the metadata.
    """
    spec = checkpoint.spec
    height, width = input_hw or spec.input_hw
    network = merged_for_inference(checkpoint.build())
    # Two images, because an example of one would make the exporter take the batch for constant.
    example = torch.zeros(2, len(spec.bands), height, width)
    with warnings.catch_warnings():
        # torch 2.13 uses a class of its own that it deprecates; nothing here can avoid it.
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        exporter_log = logging.getLogger("torch.onnx")
        level = exporter_log.level
        exporter_log.setLevel(logging.ERROR)  # it warns that torchvision is absent
        try:
            traced = torch.export.export(
                network.eval(),
                (example,),
                dynamic_shapes={"x": {0: torch.export.Dim("N", min=1, max=64)}},
            )
            traced = traced.run_decompositions(decomposition(keep_windows=keep_operator))
            program = torch.onnx.export(
                traced,
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=OPSET,
                custom_translation_table=translation_table(),
                verbose=False,
            )
        finally:
            exporter_log.setLevel(level)
    if program is None:
        raise BackendError("torch.onnx.export returned nothing; report this as a bug")
    model: onnx.ModelProto = onnxslim.slim(program.model_proto)
    model.producer_name = _PRODUCER
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # source lines of the exporting machine
        node.doc_string = ""
    attach_spec(model, spec)
    attach_function(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def attach_spec(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Writes a spec with its aliases into the metadata of a model, replacing what was there."""
    onnx.helper.set_model_props(model, spec.to_metadata())


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Writes a model whole or not at all."""
    with replacing(path) as temporary:
        onnx.save(model, temporary)


def largest_difference(checkpoint: Checkpoint, model: onnx.ModelProto, images: np.ndarray) -> float:
    """Returns the largest logit difference between torch and ONNX, over the largest logit.

    Args:
        checkpoint: The origin.
        model: Its export.
        images: (N, C, H, W) float32 network input.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (exported,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
    with torch.inference_mode():
        original = checkpoint.build()(torch.from_numpy(images)).numpy()
    return float(np.abs(exported - original).max() / np.abs(original).max())
