"""Trained networks as numpy sees them: arrays of a clip in, picture and mask out, whatever engine computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from lib_vitface import device as devices
from lib_vitface.models.checkpoint import Checkpoint
from lib_vitface.types import Floats

if TYPE_CHECKING:
    import torch


class Network(Protocol):
    """`inputs` are the fields of `types.Batch` but `identity`; back come `image` [B, T, 3, H, W] and `mask` [B, T, 1, H, W] 0..1.

    `device` is the torch device it computes on, None for an engine that is not torch.
    """

    @property
    def device(self) -> torch.device | None: ...

    def __call__(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats]: ...


class TorchNetwork:
    """The trained network itself, in the device's fast number format."""

    def __init__(self, checkpoint: Checkpoint, *, device: str, weights: str, identity: int) -> None:
        import torch

        from lib_vitface.models.swapper import build_model

        self.device = devices.pick_device(device)
        self._dtype = devices.fast_dtype(self.device)
        self._identity = identity
        self._network = build_model(checkpoint.config)
        self._network.load_state_dict(checkpoint.tensors(weights))
        self._network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def __call__(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        import torch

        from lib_vitface.types import Batch

        clips = len(next(iter(inputs.values())))
        tensors = {name: self._tensor(values) for name, values in inputs.items()}
        batch = Batch(**tensors, identity=torch.full((clips,), self._identity, device=self.device))
        with torch.inference_mode(), devices.autocast(self.device, self._dtype):
            output = self._network(batch)
        return output.image.float().cpu().numpy(), output.mask.float().cpu().numpy()

    def _tensor(self, values: Floats) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(values).to(self.device)
        if tensor.dim() != 5:
            return tensor
        flat = tensor.flatten(0, 1).to(memory_format=torch.channels_last)
        return flat.unflatten(0, tensor.shape[:2])


def open_network(checkpoint: Checkpoint, *, device: str, weights: str, identity: int) -> Network:
    """The network of a model folder, drawing person `identity` (see `types.Batch`)."""
    return TorchNetwork(checkpoint, device=device, weights=weights, identity=identity)
