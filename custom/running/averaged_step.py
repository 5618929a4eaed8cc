"""One training step that keeps a moving average of the weights and, on CUDA, is replayed as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.inferers import Inferer
from torch import nn

from custom.inferers.cpu_autocast import CPUAutocastInferer

WARM_UP = 3  # steps before a capture, in which cuDNN and the optimizer make what they keep


class AveragedStep:
    """The `iteration_update` of MONAI's SupervisedTrainer for networks whose scans each have their own statistics.

    The scans of a batch go through the network one by one, the gradient is their mean, its norm is clipped, and the
    optimizer takes one step. Then the average moves towards the new weights.

    On CUDA with `graph` the whole step is captured once and replayed: a replay costs the host next to nothing, so that
    it can draw the next scans meanwhile. Nothing here waits for the device. Batches must then all have one shape; one
    of another shape, such as a last smaller batch, is not captured.

    Args:
        network: as it is trained, on its device.
        average: a copy of it, which receives the moving average. Save and validate this one.
        loss: of logits (1, C, ...) and labels (1, L, ...).
        optimizer: of the network's parameters, with its learning rate's scheduler made already.
        decay: of the average.
        max_norm: of the gradient.
        inferer: runs the network; CPUAutocastInferer by default.
        amp: bfloat16 on CUDA.
        graph: capture the step, on CUDA.

    Returns:
        {"loss": a number on the device}, as the engine's output.
    """

    def __init__(
        self,
        network: nn.Module,
        average: nn.Module,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        optimizer: torch.optim.Optimizer,
        decay: float = 0.999,
        max_norm: float = 5.0,
        inferer: Inferer | None = None,
        amp: bool = True,
        graph: bool = True,
    ) -> None:
        self.network = network
        self.average = average
        self.loss = loss
        self.optimizer = optimizer
        self.decay = decay
        self.max_norm = max_norm
        self.amp = amp
        self.parameters: list[torch.Tensor] = [
            parameter for parameter in network.parameters() if parameter.requires_grad
        ]
        followers = dict(average.named_parameters())
        bare = getattr(network, "module", network)  # DistributedDataParallel keeps it in .module
        trained = (name for name, parameter in bare.named_parameters() if parameter.requires_grad)
        self.averages: list[torch.Tensor] = [followers[name] for name in trained]
        self.device = self.parameters[0].device
        self.graph = graph and self.device.type == "cuda"
        self.inferer = inferer or CPUAutocastInferer(amp=amp)
        self.steps = 0
        self.captured: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[torch.Tensor, torch.Tensor] | None = None
        self.value: torch.Tensor | None = None

    def __call__(self, _engine: Engine, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """One step on a batch: "image" (B, C, x, y, z) and "label" (B, L, x, y, z)."""
        self.network.train()
        image, label = (
            batch[key].as_subclass(torch.Tensor).to(self.device, non_blocking=True) for key in ("image", "label")
        )
        if not self.graph:
            return {"loss": self._step(image, label)}
        if self.inputs is None:
            make_capturable(self.optimizer, self.device)
            self.inputs = (image.clone(), label.clone())
        if image.shape != self.inputs[0].shape:
            return {"loss": self._step(image, label)}
        for static, given in zip(self.inputs, (image, label), strict=True):
            static.copy_(given)
        self.steps += 1
        if self.steps <= WARM_UP:
            return {"loss": self._on_side_stream()}
        if self.captured is None:
            self.captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.captured):
                self.value = self._step(*self.inputs)
        self.captured.replay()
        assert self.value is not None
        return {"loss": self.value.clone()}  # the next replay writes over it

    def _on_side_stream(self) -> torch.Tensor:
        assert self.inputs is not None
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            value = self._step(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return value

    def _step(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        kept = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if kept:
            torch._foreach_zero_(kept)
        total = torch.zeros((), device=self.device)
        for scan, reference in zip(image.split(1), label.split(1), strict=True):
            with torch.autocast(
                "cuda", torch.bfloat16, enabled=self.amp and self.device.type == "cuda", cache_enabled=False
            ):
                logits = self.inferer(scan, self.network)
            loss = self.loss(logits, reference) / len(image)
            loss.backward()
            total += loss.detach()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        for gradient in gradients:  # one bad scan must not end a training
            gradient.nan_to_num_(0, 0, 0)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (self.max_norm / (norm + 1e-6)).clamp(max=1.0))
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1 - self.decay)
        return total


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Keeps an optimizer's learning rate and step counts on the device, where a CUDA graph reads them anew."""
    for group in optimizer.param_groups:
        group["capturable"] = True
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32).to(device)
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] = torch.as_tensor(state["step"], dtype=torch.float32).to(device)
