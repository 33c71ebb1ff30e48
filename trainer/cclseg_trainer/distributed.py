"""Training in several processes, started by ``torchrun``, as if it were one.

Crop i of a step's joint batch belongs to process ``i mod W`` of the W processes. What couples the
crops of a batch is computed over all of them:

- batch norms take mean and variance of the joint batch;
- the outputs are gathered, and every process computes the loss of the joint batch, whose class
  weights, Dice sums and hardest pixels are therefore those of one process;
- channels that dropout leaves out are drawn for the joint batch.

Why the gradient is that of one process: the loss L is a function of all outputs z_r, and process r
takes dL/dz_r of its own, times W, back through its network; the joint sums in the batch norms send
on what all processes ask of them. Process r so holds W times its part of dL/dw, and
DistributedDataParallel takes the mean, the sum of the parts. Weights, their average and the state
of the optimiser then stay the same in all processes, and the first one alone writes files.

With one process nothing of this happens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from cclseg.errors import CclsegError, InputError

if TYPE_CHECKING:
    from .config import TrainConfig
    from .losses import SegmentationLoss

_Value = TypeVar("_Value")

_PATIENCE = timedelta(hours=2)  # the others wait while the first process validates
_OF_A_CHANNEL = (0, 2, 3)  # axes of (N, C, H, W)
_LOST = re.compile(
    r"(closed|reset) by peer|broken pipe|timed out|remote process exited", re.IGNORECASE
)


class LostProcessError(CclsegError, RuntimeError):
    """Another process of the training has ended, so this one cannot go on."""


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Says what a broken connection to another process means.

    Raises:
        LostProcessError: There was one.
    """
    try:
        yield
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        raise LostProcessError(
            "another process of this training has ended, its own message says why; mend that and "
            "start all again: the run resumes"
        ) from error


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that train one network together, seen from one of them.

    Attributes:
        device: Where this process computes.
        own: Its number, from 0 on.
        count: How many there are.
    """

    device: torch.device
    own: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, validates, and tells what happens."""
        return self.own == 0

    @property
    def share(self) -> slice:
        """Which crops of a joint batch are those of this process."""
        return slice(self.own, None, self.count)

    def check(self, config: TrainConfig) -> None:
        """Refuses what several processes cannot share.

        Raises:
            InputError: The crops of a step do not divide evenly, or the network is quantised.
        """
        if self.count > 1 and config.quantize:
            raise InputError(
                f"training with quantisation was started in {self.count} processes; the ranges of "
                "its activations are found by one: start it without torchrun"
            )
        for name in ("batch_size", "unlabelled_crops"):
            crops = getattr(config, name)
            if crops % self.count:
                raise InputError(
                    f"{name} is {crops}, the crops of all {self.count} processes together; "
                    f"expected a multiple of {self.count}"
                )

    def told_by_first(self, compute: Callable[[], _Value]) -> _Value:
        """Lets the first process compute something and tells the others, who wait for it."""
        if self.count == 1:
            return compute()
        told: list[Any] = [compute() if self.is_first else None]
        distributed.broadcast_object_list(told, device=self.device)
        return cast("_Value", told[0])

    def joint(self, maps: Any) -> Any:  # noqa: ANN401 - keeps the structure it is given
        """Gathers the crops of all processes, with gradients to those of this one.

        Args:
            maps: A tensor (N, ...), None, or tuples and dictionaries of these.

        Returns:
            The same with tensors (N * count, ...), crops in the order of the joint batch.
        """
        if self.count == 1 or maps is None:
            return maps
        if isinstance(maps, dict):
            return {name: self.joint(value) for name, value in maps.items()}
        if isinstance(maps, tuple):
            values = [self.joint(value) for value in maps]
            return type(maps)(*values) if hasattr(maps, "_fields") else tuple(values)
        return _Gathered.apply(maps.contiguous(), self)  # type: ignore[no-untyped-call]

    def objective(self, network: nn.Module, loss: SegmentationLoss) -> nn.Module:
        """Returns the loss of the joint batch as one module, a function of this process's crops.

        Args:
            network: The network, on the device; its batch norms and dropouts are made joint ones.
            loss: What is minimised.
        """
        if self.count == 1:
            return Objective(network, loss, self)
        _couple(network, self)
        return DistributedDataParallel(
            Objective(network, loss, self),
            device_ids=[self.device] if self.device.type == "cuda" else None,
            find_unused_parameters=loss.ignores_heads,
        )


class Objective(nn.Module):
    """A network and its loss in one: DistributedDataParallel must see what the loss depends on.

    Args:
        network: The network.
        loss: What is minimised.
        ranks: The processes whose crops it is computed of.
    """

    def __init__(self, network: nn.Module, loss: SegmentationLoss, ranks: Ranks) -> None:
        super().__init__()
        self._network, self._loss, self._ranks = network, loss, ranks

    def forward(self, crops: Tensor, *targets: Any, **maps: Any) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            crops: (N, C, H, W) network input of this process.
            *targets: What :class:`SegmentationLoss` takes after the output of the network.
            **maps: What it takes by name.
        """
        is_cuda = crops.device.type == "cuda"
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=is_cuda):
            output = self._network(crops)
        output, targets, maps = self._ranks.joint((output, targets, maps))
        return self._loss(output, *targets, **maps)


def refuse_several(what: str) -> None:
    """Refuses a kind of run that one process does alone.

    Raises:
        InputError: ``torchrun`` started more than one.
    """
    count = int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1
    if count > 1:
        raise InputError(
            f"{what} was started in {count} processes and takes one; start it without torchrun"
        )


def join_ranks() -> Ranks:
    """Finds the other processes where ``torchrun`` started this one; else there is one.

    Raises:
        InputError: More processes than GPUs were started on this machine.
    """
    count = int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1
    has_gpu = torch.cuda.is_available()
    if count == 1:
        return Ranks(torch.device("cuda" if has_gpu else "cpu"))
    device = _own_gpu() if has_gpu else torch.device("cpu")
    if not distributed.is_initialized():
        _meet("nccl" if has_gpu else "gloo")
    return Ranks(device, distributed.get_rank(), count)


def _meet(backend: str) -> None:
    """Connects the processes, whose addresses each start on one machine keeps apart.

    torchrun keeps one store over its restarts (torch 2.13, dynamic_rendezvous.py): the
    processes of the second start would look for those of the first. On several machines the
    counts of restarts differ, so that there the store stays as it is.
    """
    store, rank, count = next(rendezvous("env://", timeout=_PATIENCE))
    if os.environ["GROUP_WORLD_SIZE"] == "1":
        start = os.environ["TORCHELASTIC_RESTART_COUNT"]
        store = PrefixStore(f"start {start}", store)
    distributed.init_process_group(
        backend, timeout=_PATIENCE, store=store, rank=rank, world_size=count
    )


def _own_gpu() -> torch.device:
    """Chooses the GPU of the same number as this process has on its machine."""
    number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= gpus:
        raise InputError(
            f"torchrun started process {number + 1} on a machine with {gpus} GPUs; expected one "
            f"process per GPU: --nproc-per-node {gpus}"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


class _Gathered(torch.autograd.Function):
    """The crops of all processes in the order of the joint batch."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Ranks) -> Tensor:  # noqa: ANN401 - as torch has it
        ctx.ranks = ranks
        parts = [torch.empty_like(own) for _ in range(ranks.count)]
        distributed.all_gather(parts, own)
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        # Times the number of processes, because DistributedDataParallel divides by it.
        return gradient[ctx.ranks.share] * ctx.ranks.count, None


class _Summed(torch.autograd.Function):
    """The sum over all processes; each of them uses it, so their gradients add up, too."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ANN401 - as torch has it
        total = own.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class JointBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the crops of all processes, as many in each; for CPUs, as torch has none.

    In eval mode, in which frozen norms are, it uses its running statistics and asks nobody.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        count = distributed.get_world_size()
        mean = _mean_of_all(x, count)
        centred = x - mean
        variance = _mean_of_all(centred.square(), count)
        self._remember(mean, variance, places=count * x.numel() // x.shape[1])
        scale = (variance + self.eps).rsqrt() * self.weight[:, None, None]
        return centred * scale + self.bias[:, None, None]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, *, places: int) -> None:
        """Moves the running statistics, whose variance is the unbiased one."""
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean.flatten(), self.momentum)
        self.running_var.lerp_(variance.flatten() * (places / (places - 1)), self.momentum)
        self.num_batches_tracked.add_(1)


def _mean_of_all(x: Tensor, count: int) -> Tensor:
    """(N, C, H, W) -> (1, C, 1, 1), the mean over the crops of all processes."""
    own = x.mean(_OF_A_CHANNEL, keepdim=True)
    total: Tensor = _Summed.apply(own)  # type: ignore[no-untyped-call]
    return total / count


class JointDropout2d(nn.Dropout2d):
    """Draws for the joint batch which channels are left out, and uses the share of one process."""

    def __init__(self, p: float, ranks: Ranks) -> None:
        super().__init__(p)
        self._ranks = ranks

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training:
            return x
        ones = x.new_ones(len(x) * self._ranks.count, x.shape[1], 1, 1)
        return x * F.dropout2d(ones, self.p)[self._ranks.share]


def _couple(network: nn.Module, ranks: Ranks) -> None:
    """Makes the layers of a network that couple the crops of a batch couple all processes."""
    if ranks.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, _joint_norm(child))
            elif isinstance(child, nn.Dropout2d):
                setattr(parent, name, JointDropout2d(child.p, ranks))


def _joint_norm(norm: nn.BatchNorm2d) -> JointBatchNorm2d:
    """Returns a joint batch norm with the parameters and running statistics of a plain one."""
    joint = JointBatchNorm2d(norm.num_features, norm.eps, norm.momentum)
    joint.weight, joint.bias = norm.weight, norm.bias
    joint.running_mean, joint.running_var = norm.running_mean, norm.running_var
    joint.num_batches_tracked = norm.num_batches_tracked
    return joint
