"""Domain adaptation: a discriminator tries to tell experimental from simulated tracks inside the network.

Its gradient reaches the network reversed, so that the network learns to make them look alike (domain-adversarial
training, DANN: Ganin et al., JMLR 17 (2016) 59). In the conditional form (CDAN: Long et al., NeurIPS 2018) the
discriminator sees the outer product of the last hidden layer and the certainties, so that tracks are compared with
tracks of the same species. Only the network is kept; the discriminator ends with the training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pidml.data.prepared import PreparedDataset
from pidml.errors import NoTracks, TrainingError
from pidml.models import Network
from pidml.models.layers import perceptron
from pidml.models.pieces import pieces
from pidml.spec import JobSpec
from pidml.spec.adaptation_section import Adaptation
from pidml.training.objective import Objective

#: Domains: rows of the sums, and labels of the discriminator.
SIMULATED, EXPERIMENTAL = 0, 1


@dataclass(frozen=True)
class AdaptationSummary:
    """What came out of domain adaptation.

    Attributes:
        method: dann or cdan.
        experimental_tracks: size of the experimental training sample.
        domain_loss: of the discriminator in the epoch that is kept, validation samples, nats; ln 2 is chance.
        domain_accuracy: likewise its accuracy, both domains counting the same; 0.5 is chance.
    """

    method: str
    experimental_tracks: int
    domain_loss: float
    domain_accuracy: float


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficient: float) -> Tensor:
        ctx.coefficient = coefficient
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.coefficient * gradients[0], None


def reverse_gradient(x: Tensor, coefficient: float) -> Tensor:
    """Return ``x``; on the way back its gradient is multiplied by ``−coefficient``."""
    reversed_: Tensor = _Reversal.apply(x, coefficient)  # type: ignore[no-untyped-call]
    return reversed_


def coefficient_at(adaptation: Adaptation, progress: float) -> float:
    """Return the weight of the reversed gradient: 0 at first, when the discriminator knows nothing, then rising.

    Args:
        adaptation: largest coefficient and steepness γ.
        progress: part of the training that is done, 0 to 1; the rise is 2/(1 + exp(−γ · progress)) − 1 (Ganin and
            Lempitsky, ICML 2015).
    """
    return adaptation.coefficient * math.tanh(0.5 * adaptation.steepness * progress)


def predicted(objective: Objective, logits: Tensor) -> Tensor:
    """Return the probability of each outcome, "none of the species" last, ``(batch, outcomes)``; rows add up to 1.

    The yes-or-no questions of a binary objective are taken as independent, and outcomes with several yes left out.
    """
    if objective == "softmax":
        return torch.softmax(logits, dim=1)
    # p(only this one) ∝ odds of its question; p(none) ∝ 1.
    return torch.softmax(functional.pad(logits, (0, 1)), dim=1)


class Adversary(nn.Module):
    """The discriminator, and the losses that come with it.

    Attributes:
        validation_sum: per domain (row): sum of losses, tracks recognised, tracks; of the validation samples so far.
    """

    validation_sum: Tensor

    def __init__(self, adaptation: Adaptation, objective: Objective, network: Network, total_steps: int) -> None:
        super().__init__()
        self.adaptation, self.objective, self.total_steps = adaptation, objective, max(1, total_steps)
        width = network.output.in_features
        if adaptation.method == "cdan":
            width *= network.output.out_features + (objective == "binary")
        # Without it the network would hide the domains from the discriminator in values that are small beside others.
        self.normalised = nn.BatchNorm1d(network.output.in_features, affine=False)
        self.hidden, last = perceptron(width, adaptation.hidden, 0.0)
        self.output = nn.Linear(last, 1)
        self.register_buffer("validation_sum", torch.zeros(2, 3, dtype=torch.float64), persistent=False)

    def forward(self, latent: Tensor, logits: Tensor, coefficient: float) -> Tensor:
        """Return the logit of "experimental" per track, shape ``(batch,)``.

        Args:
            latent: last hidden layer of the network, ``(batch, width)``; its gradient is reversed.
            logits: the network's; they are a condition (cdan), no gradient reaches them.
            coefficient: weight of the reversed gradient.
        """
        seen = self.normalised(reverse_gradient(latent.float(), coefficient))
        if self.adaptation.method == "cdan":
            outcomes = predicted(self.objective, logits.detach().float())
            seen = (seen[:, :, None] * outcomes[:, None, :]).flatten(1)
        domain: Tensor = self.output(self.hidden(seen))
        return domain[:, 0]

    def step(self, network: Network, simulated: Tensor, experimental: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Return the logits of the simulated tracks, and the discriminator's loss: the mean of both domains'.

        Args:
            network: what is adapted.
            simulated: encoded features, ``(batch, encoded)``.
            experimental: the same of experimental tracks; any number.
            steps: optimiser steps taken so far.
        """
        latent = network.latent(torch.cat([simulated, experimental]))
        logits = network.output(latent)
        domain = self(latent, logits, coefficient_at(self.adaptation, steps / self.total_steps))
        weight = self._weights(logits)
        count = len(simulated)
        parts = [
            (weight[rows] * _domain_loss(domain[rows], which)).sum() / weight[rows].sum()
            for which, rows in ((SIMULATED, slice(0, count)), (EXPERIMENTAL, slice(count, None)))
        ]
        return logits[:count], 0.5 * (parts[0] + parts[1])

    def _weights(self, logits: Tensor) -> Tensor:
        """Return the weight of each track: 1, or 1 + exp(−entropy of the prediction) (Long et al., 2018)."""
        if self.adaptation.method != "cdan" or not self.adaptation.entropy_weighting:
            return logits.new_ones(len(logits), dtype=torch.float32)
        outcomes = predicted(self.objective, logits.detach().float())
        return 1 + torch.exp(-torch.special.entr(outcomes).sum(dim=1))

    @torch.no_grad()
    def judge_simulated(self, network: Network, encoded: Tensor) -> Tensor:
        """Add simulated validation tracks to the sums; return their logits."""
        return self._judge(network, encoded, SIMULATED)

    @torch.no_grad()
    def judge_experimental(self, network: Network, encoded: Tensor) -> None:
        """Add experimental validation tracks to the sums, in pieces that fit the network."""
        for (part,) in pieces(network.evaluation_batch, encoded):
            self._judge(network, part, EXPERIMENTAL)

    def _judge(self, network: Network, encoded: Tensor, which: int) -> Tensor:
        latent = network.latent(encoded)
        logits: Tensor = network.output(latent)
        domain, total = self(latent, logits, 0.0), self.validation_sum[which]
        total[0] += _domain_loss(domain, which).sum()
        total[1] += ((domain > 0) == bool(which)).sum()
        total[2] += len(domain)
        return logits


def _domain_loss(domain: Tensor, which: int) -> Tensor:
    """Return the cross entropy per track (nats)."""
    return functional.softplus(-domain if which == EXPERIMENTAL else domain)


def balanced(sums: Tensor) -> tuple[float, float]:
    """Return loss and accuracy of :attr:`Adversary.validation_sum`, both domains counting the same; chance is 0.5."""
    loss, accuracy = (sums[:, :2] / sums[:, 2:].clamp(min=1)).mean(dim=0).tolist()
    return loss, accuracy


def initial_adversary(job: JobSpec, network: Network, total_steps: int) -> Adversary:
    """Return the discriminator before training; its weights depend on the job's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed + 1)
        return Adversary(job.adaptation, job.training.objective, network, total_steps)


def check_experimental(job: JobSpec, prepared: PreparedDataset, experimental: PreparedDataset | None) -> None:
    """Make sure that there are experimental samples where networks are to be adapted, and that they fit.

    Raises:
        TrainingError: there are none, or they were prepared otherwise than the simulation.
        NoTracks: one of them is empty.
    """
    if not job.adaptation.active:
        return
    if experimental is None:
        raise TrainingError(
            f"adaptation.method = {job.adaptation.method}: no experimental samples are given",
            "prepare the experimental files with the settings of the simulation",
        )
    for key in ("features", "momentum_limits"):
        ours, theirs = prepared.meta[key], experimental.meta[key]
        if ours != theirs:
            raise TrainingError(
                f"{experimental.path}: {key} {theirs} differ from those of the simulation, {ours}",
                "prepare both with the same settings",
            )
    for name in ("train", "validation"):
        if not len(experimental.split(name)):
            raise NoTracks(f"{experimental.path}: the {name} sample is empty", "give more experimental tracks")
