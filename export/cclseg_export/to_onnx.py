"""A checkpoint becomes an ONNX file that carries everything needed to run it."""

from __future__ import annotations

import dataclasses
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxslim
import torch

from cclseg.errors import BackendError, InputError
from cclseg.files import replacing
from cclseg_trainer.models.blocks import merged_for_inference
from cclseg_trainer.models.network import INPUT_MULTIPLE

from .operator import attach_function, decomposition, translation_table

if TYPE_CHECKING:
    from pathlib import Path

    from cclseg.spec import ModelSpec
    from cclseg_trainer.checkpoint import Checkpoint

INPUT_NAME = "images"
OUTPUT_NAME = "logits"
OPSET = 18
_PRODUCER = "cclseg"
_MOST_PARTS = 512  # of 32 pixels along a free axis


def to_onnx(
    checkpoint: Checkpoint,
    *,
    input_hw: tuple[int, int] | None = None,
    free_size: bool = False,
    keep_operator: bool = False,
) -> onnx.ModelProto:
    """Converts a checkpoint to a checked and simplified fp32 model.

    Multi-scale depthwise kernels are merged and batch norms folded first; the training heads are
    not part of the graph. The operators are those of set 18, which all targets read.

    Args:
        checkpoint: What the trainer wrote.
        input_hw: Height and width of the input, multiples of 32; None for the spec's.
        free_size: Leave height and width free as well, any multiples of 32; ``input_hw`` is then
            what the file recommends.
        keep_operator: Leave each correlation over a window one node for compiled kernels, with a
            body of standard operators beside it; else standard operators take its place.

    Returns:
        Input ``images`` (N, C, H, W) and output ``logits`` (N, K, H/4, W/4), both float32, N free;
        the spec stands in the metadata.

    Raises:
        InputError: The size is not a multiple of 32.
        BackendError: ONNX lacks an operator of the network; the message names its module.
    """
    spec = checkpoint.spec
    if input_hw is not None:
        spec = dataclasses.replace(spec, input_hw=input_hw)
    if any(length % INPUT_MULTIPLE for length in spec.input_hw):
        raise InputError(
            f"input_hw is {spec.input_hw}; expected multiples of {INPUT_MULTIPLE}: the network "
            "halves its maps five times"
        )
    network = merged_for_inference(checkpoint.build()).eval()
    # Two images, because an example of one would make the exporter take the batch for constant.
    example = torch.zeros(2, len(spec.bands), *spec.input_hw)
    converted = convert(network, example, free_size=free_size, keep_operator=keep_operator)
    model: onnx.ModelProto = onnxslim.slim(converted)
    model.producer_name = _PRODUCER
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # source lines of the exporting machine
        node.doc_string = ""
    attach_spec(model, spec)
    attach_function(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def convert(
    network: torch.nn.Module, example: torch.Tensor, *, free_size: bool, keep_operator: bool
) -> onnx.ModelProto:
    """Converts a network of one input as the exporter of torch leaves it.

    Args:
        network: In eval mode.
        example: An input, at least two images.
        free_size: Leave height and width free, any multiples of 32.
        keep_operator: Leave correlations over a window one node each.

    Raises:
        BackendError: ONNX lacks an operator, or the network cannot be traced.
    """
    free = {0: torch.export.Dim("N", min=1, max=64)}
    if free_size:
        height, width = (torch.export.Dim(name, min=1, max=_MOST_PARTS) for name in ("h", "w"))
        free |= {2: INPUT_MULTIPLE * height, 3: INPUT_MULTIPLE * width}
    with _quiet_exporter():
        try:
            traced = torch.export.export(network, (example,), dynamic_shapes=(free,))
        except RuntimeError as error:
            raise BackendError(
                f"torch cannot trace the network ({_first_line(error)}); its path must not depend "
                "on the values of its maps"
            ) from error
        traced = traced.run_decompositions(decomposition(keep_windows=keep_operator))
        try:
            program = torch.onnx.export(
                traced,
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=OPSET,
                custom_translation_table=translation_table(),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise BackendError(_without_counterpart(error, traced)) from error
    if program is None:
        raise BackendError("torch.onnx.export returned nothing; report this as a bug")
    return program.model_proto


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences what nothing here can avoid."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():
        # torch 2.13 uses a class of its own that it deprecates.
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        log.setLevel(logging.ERROR)  # it warns that torchvision is absent
        try:
            yield
        finally:
            log.setLevel(level)


def _without_counterpart(error: Exception, traced: torch.export.ExportedProgram) -> str:
    """Says which operator ONNX lacks, and in which modules of the network it stands."""
    text = "\n".join(str(cause) for cause in _causes(error))
    found = re.search(r"target=torch\.ops\.([\w.]+)\]", text)
    if found is None:
        return f"the network cannot be converted to ONNX: {_first_line(error)}"
    # The exporter breaks operators up before it looks for counterparts.
    modules = {
        path or "the network itself"
        for node in traced.run_decompositions().graph.nodes
        if str(node.target) == found[1]
        for path, _ in list(node.meta.get("nn_module_stack", {}).values())[-1:]
    }
    places = ", ".join(sorted(modules)) or "a place unknown"
    return (
        f"ONNX has no counterpart of torch's operator {found[1]}, used in {places}; replace it in "
        "the network by operators that ONNX has"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


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
