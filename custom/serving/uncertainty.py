"""How uncertain a network is of a scan, for active learning."""

from __future__ import annotations

import math

import torch


def uncertainty_of(logits: torch.Tensor, masks: bool, num_classes: int | None = None) -> float:
    """How uncertain a network is: the entropy of its probabilities, divided by the number of labelled voxels.

    The number of labelled voxels counts as 1 if it is 0, so that a scan without any label counts as very uncertain.

    Args:
        logits: (B, C, ...), the network's output.
        masks: the channels are masks (sigmoid) without a background, not exclusive classes (softmax).
        num_classes: only the first channels are classes, this many; None if all are.

    Returns:
        The entropy in bits, 0 or more.
    """
    channels = torch.as_tensor(logits).detach().float()[:, :num_classes]
    if masks:
        entropy = torch.distributions.Bernoulli(logits=channels).entropy().sum()
        labelled = (channels > 0).any(dim=1).sum()
    else:
        # torch.distributions.Categorical would normalise the logits and check them first, in twice the time
        entropy = channels.logsumexp(dim=1) - (channels.softmax(dim=1) * channels).sum(dim=1)
        entropy = entropy.clamp_min(0).sum()
        labelled = (channels.max(dim=1).indices > 0).sum()
    return round(float(entropy) / math.log(2) / max(1, int(labelled)), 6)
