"""Runs a checkpoint through torch, as one more backend of the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from cclseg.backends.base import Backend

from .checkpoint import load_checkpoint
from .models.blocks import merged_for_inference

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from cclseg.frame import FloatArray
    from cclseg.spec import ModelSpec


class TorchBackend(Backend):
    """A network in torch: what the exported files are compared with.

    It runs a copy of the network in its merged form, which computes the same in less time.

    Example:
        >>> with TorchBackend.open(Path("runs/dubai/best.pt")) as backend:  # doctest: +SKIP
        ...     logits = backend.infer(images)
    """

    name = "torch"
    suffixes: ClassVar[tuple[str, ...]] = (".pt",)

    def __init__(self, model: nn.Module, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.device = "cuda" if next(model.parameters()).is_cuda else "cpu"
        merged = merged_for_inference(model)
        self._model = merged.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def open(
        cls, path: Path, *, spec: ModelSpec | None = None, threads: int | None = None
    ) -> TorchBackend:
        """Loads a checkpoint.

        Args:
            path: A ``.pt`` file written by the trainer.
            spec: Used instead of the checkpoint's own where given.
            threads: Threads of torch in the whole process, None to leave them.

        Raises:
            BackendError: The file is damaged or no checkpoint of ours.
        """
        checkpoint = load_checkpoint(path)
        if threads is not None:
            torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(checkpoint.build().to(device), spec or checkpoint.spec)

    @torch.inference_mode()
    def _infer(self, images: FloatArray) -> FloatArray:
        batch = torch.from_numpy(images).to(self.device)
        logits: FloatArray = self._model(batch).float().cpu().numpy().astype(np.float32, copy=False)
        return logits
