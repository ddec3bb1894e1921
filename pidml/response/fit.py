"""Fits the TPC response: Gaussian likelihood of each track under its own species, robust against outliers.

The likelihood of r = signal ÷ expected − 1 is (1 − ε)·N(r; 0, σ) + ε·B(r) with a broad background B, so that a track
far from its expectation (wrong label, merged clusters) pulls with a bounded force; ε = 0 is the plain Gaussian. The
mean and the width of the pulls are then set on tracks that the fit has not seen.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pidml.data.prepared import PreparedDataset
from pidml.errors import Diverged
from pidml.evaluation.intervals import ONE_SIGMA
from pidml.models import Inputs
from pidml.response.network import TpcResponse
from pidml.response.pulls import pull_of
from pidml.response.sample import OwnTracks, learnable, own_tracks
from pidml.spec.response_section import Response

logger = logging.getLogger(__name__)

#: Width of the background in r.
_BACKGROUND = 0.5
#: Largest r that is let through.
_LARGEST = 100.0
_WEIGHT_DECAY = 0.1
_EVALUATION_ROWS = 65_536
#: Error, in units of the resolution, that bias and width of a fit have by experience.
_FIT_ERROR = 0.03
_QUANTILES = ((1 - ONE_SIGMA) / 2, 0.5, (1 + ONE_SIGMA) / 2)


@dataclass(frozen=True)
class ResponseFit:
    """A fitted response and how it came about.

    Attributes:
        response: frozen.
        history: per epoch, mean loss of the fitted tracks and of those kept for calibration (nats per track).
        best_epoch: the epoch that is kept (smallest loss on the tracks kept for calibration), from 0.
        examples: tracks per hypothesis asked for, of the tracks that were read.
        check: tracks that neither fit nor calibration have seen.
        fitted, calibrated: numbers of tracks that have been used for these.
    """

    response: TpcResponse
    history: tuple[tuple[float, float], ...]
    best_epoch: int
    examples: dict[str, int]
    check: OwnTracks
    fitted: int
    calibrated: int


def fit_response(prepared: PreparedDataset, settings: Response, seed: int) -> ResponseFit:
    """Fit the TPC response on the training sample; the same seed and number of threads give the same response.

    Raises:
        NoLabels, NoTracks, SpeciesAbsent: see :func:`pidml.response.sample.learnable`.
        MissingColumn: the features lack the TPC signal or the momentum.
        Diverged: the loss became NaN or infinite.
    """
    species, examples = learnable(prepared, settings)
    for name in set(settings.species) - set(species):
        logger.warning("%s: %d tracks are too few to learn its TPC response: left out", name, examples[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        response = TpcResponse(Inputs.of(prepared.scaling), species, settings.hidden)
        tracks = own_tracks(prepared, response, settings.max_tracks)
        fitted = round(len(tracks) * (1 - settings.held_out))
        middle = (fitted + len(tracks)) // 2
        sample, calibration = tracks.part(slice(0, fitted)), tracks.part(slice(fitted, middle))
        _start(response, sample)
        history, best = _train(response, sample, calibration, settings)
    _calibrate(response, calibration)
    check = tracks.part(slice(middle, len(tracks)))
    return ResponseFit(response.freeze(), history, best, examples, check, fitted, middle - fitted)


def _start(response: TpcResponse, sample: OwnTracks) -> None:
    """Set centre and width of each hypothesis, and the scale of the inputs, by what does not care for outliers."""
    x = sample.network_inputs
    response.input_mean.copy_(x.mean(dim=0))
    response.input_std.copy_(torch.clamp(x.std(dim=0), min=1e-3))
    for index in range(len(response.species)):
        low, middle, high = np.log(np.quantile(sample.ratio[sample.species == index].numpy(), _QUANTILES))
        response.log_centre[index] = float(middle)
        response.log_width[index] = float(np.log(np.clip((high - low) / 2, 0.02, 0.3)))


def loss(response: TpcResponse, part: OwnTracks, outliers: float, weights: Tensor | None = None) -> Tensor:
    """Return the mean negative log-likelihood (nats per track) of tracks under their own species.

    Args:
        response: the response.
        part: the tracks.
        outliers: part of the tracks whose signal is taken to be anything.
        weights: per hypothesis, how much its tracks count; all the same without.
    """
    log_expected, log_width = response.learned(part.network_inputs)
    own = part.species[:, None]
    width = log_width.gather(1, own)[:, 0]
    # The density of the signal, up to a factor that depends on the track alone, is that of r over the expectation.
    scale = log_expected.gather(1, own)[:, 0]
    r = (part.ratio * torch.exp(-scale) - 1).clamp(max=_LARGEST)
    density = -0.5 * (r * torch.exp(-width)) ** 2 - width - scale
    if outliers > 0:
        broad = -0.5 * (r / _BACKGROUND) ** 2 - math.log(_BACKGROUND) - scale
        density = torch.logaddexp(math.log(1 - outliers) + density, math.log(outliers) + broad)
    if weights is None:
        return -density.mean()
    return -(density * weights[part.species]).mean()


def _train(
    response: TpcResponse, sample: OwnTracks, calibration: OwnTracks, settings: Response
) -> tuple[tuple[tuple[float, float], ...], int]:
    """Train; leave the weights of the best epoch in the response. Return the losses and that epoch."""
    weights = _weights(sample.species, len(response.species))
    optimizer = torch.optim.AdamW(response.parameters(), settings.learning_rate, weight_decay=_WEIGHT_DECAY)
    steps = max(1, len(sample) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.epochs * steps, pct_start=0.2, cycle_momentum=False
    )
    history: list[tuple[float, float]] = []
    best, state = 0, {}
    for epoch in range(settings.epochs):
        total, order = 0.0, torch.randperm(len(sample))
        for step in range(steps):
            batch = sample.part(order[step * settings.batch_size : (step + 1) * settings.batch_size])
            optimizer.zero_grad()
            value = loss(response, batch, settings.outliers, weights)
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(response.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += value.item()
        history.append((total / steps, _evaluated(response, calibration, settings.outliers, weights)))
        if not all(map(math.isfinite, history[-1])):
            raise Diverged(f"the loss of the TPC response became NaN in epoch {epoch}", "lower response.learning_rate")
        logger.info("TPC response, epoch %d: loss %.5f, held-out tracks %.5f", epoch, *history[-1])
        if history[-1][1] <= history[best][1]:
            best = epoch
            state = {name: value.clone() for name, value in response.state_dict().items()}
    response.load_state_dict(state)
    return tuple(history), best


def _weights(species: Tensor, number: int) -> Tensor:
    """Return the weight of each hypothesis: rare ones count more, by the root of their rarity; 1 in the mean."""
    counts = torch.bincount(species, minlength=number).clamp(min=1).float()
    weights = counts**-0.5
    return weights * len(species) / (weights * counts).sum()


@torch.no_grad()
def _evaluated(response: TpcResponse, part: OwnTracks, outliers: float, weights: Tensor) -> float:
    total = 0.0
    for rows in _blocks(part):
        total += float(loss(response, part.part(rows), outliers, weights)) * (rows.stop - rows.start)
    return total / len(part)


def _blocks(part: OwnTracks) -> list[slice]:
    starts = range(0, len(part), _EVALUATION_ROWS)
    return [slice(start, min(start + _EVALUATION_ROWS, len(part))) for start in starts]


@torch.no_grad()
def pulls(response: TpcResponse, part: OwnTracks) -> NDArray[np.float32]:
    """Return nσ of tracks under their own species, float32 (tracks,)."""
    result = []
    for rows in _blocks(part):
        each = part.part(rows)
        under_all = response.pulls(each.network_inputs, each.ratio[:, None])
        result.append(under_all.gather(1, each.species[:, None])[:, 0])
    return torch.cat(result).numpy()


def _calibrate(response: TpcResponse, calibration: OwnTracks) -> None:
    """Correct median and width of the pulls by those of tracks that the fit has not seen.

    A correction counts as much as its error allows: of a few tracks it would spoil more than it mends.
    """
    values, species = pulls(response, calibration), calibration.species.numpy()
    for index in range(len(response.species)):
        seen = pull_of(values[species == index])
        if seen is not None:
            response.pull_mean[index] = seen.bias * _trust(seen.bias_error)
            response.pull_width[index] = 1 + (seen.width - 1) * _trust(seen.width_error)


def _trust(error: float) -> float:
    """Return the weight of a measurement beside the expectation that the fit is right within ``_FIT_ERROR``."""
    return _FIT_ERROR**2 / (_FIT_ERROR**2 + error**2)
