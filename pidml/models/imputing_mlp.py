"""Missing values are filled in, then everything goes through hidden layers: the customary way, kept for comparison."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pidml.models.base import Inputs, Network
from pidml.models.columns import Columns
from pidml.models.layers import perceptron
from pidml.spec.model_sections import Model

#: Weight of the pull towards 0 in the regression, relative to the tracks' own.
_RIDGE = 1e-6


class ImputingMlp(Network):
    """A multilayer perceptron that sees, for a missing value, the training sample's mean or a linear regression.

    The regression predicts a feature from those features that no training track lacks.
    """

    fill: Tensor
    offset: Tensor
    slope: Tensor

    def __init__(self, model: Model, inputs: Inputs, outputs: int) -> None:
        super().__init__()
        self.imputation = model.imputation
        features = len(inputs.names)
        self.register_buffer("fill", torch.zeros(features))
        self.register_buffer("offset", torch.zeros(features))
        self.register_buffer("slope", torch.zeros(features, features))
        self.columns, self.spread = Columns(inputs), inputs.spread
        self.hidden, width = perceptron(self.columns.size, model.hidden, model.dropout)
        self.output = nn.Linear(width, outputs)

    @torch.no_grad()
    def learn_inputs(self, standardised: Tensor) -> None:
        """Take means and regressions from training tracks, float32 ``(tracks, features)``; feature never seen: 0."""
        mean = torch.nan_to_num(torch.nanmean(standardised.double(), dim=0))
        self.fill.copy_(mean)
        self.offset.copy_(mean)
        self.slope.zero_()  # weights of an earlier training may have other predictors
        if self.imputation == "mean":
            return
        missing = torch.isnan(standardised)
        predictors = (~missing).all(dim=0).nonzero()[:, 0]
        centred = (standardised.double() - mean)[:, predictors]
        for feature in missing.any(dim=0).nonzero()[:, 0].tolist():
            there = ~missing[:, feature]
            if not there.any():
                continue
            x, y = centred[there], standardised[there, feature].double()
            x_mean, y_mean = x.mean(dim=0), y.mean()
            x, y = x - x_mean, y - y_mean
            gram = x.T @ x
            gram += _RIDGE * gram.diagonal().mean().clamp(min=1e-12) * torch.eye(len(predictors), dtype=torch.float64)
            slope = torch.linalg.solve(gram, x.T @ y)
            self.slope[predictors, feature] = slope.float()
            self.offset[feature] = (y_mean - x_mean @ slope).float()

    def encode(self, standardised: Tensor) -> Tensor:
        """Return columns of features in which nothing is missing any more."""
        missing = torch.isnan(standardised)
        filled = torch.where(missing, self.fill, standardised)
        if self.imputation == "regression":
            filled = torch.where(missing, self.offset + (filled - self.fill) @ self.slope, filled)
        columns: Tensor = self.columns(filled)[0]
        return columns

    def latent(self, encoded: Tensor) -> Tensor:
        """Return the last hidden layer, ``(batch, width)``."""
        hidden: Tensor = self.hidden(encoded)
        return hidden
