"""Sections about networks: architecture, training, evaluation and export."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pidml import tracks
from pidml.identity import file_checksum
from pidml.spec.base import Counts, Real, Reals, Section, number_as_text, setting
from pidml.spec.weight_files import weight_files

#: Architectures that grow trees on the processor; all others are networks, trained by gradients.
TREES = ("boosted-trees", "random-forest")
#: Settings of ``training`` that trees read.
_OF_TREES = {"objective", "patience", "min_improvement", "class_weights", "pattern_weights", "undersample"}
#: Settings of ``training`` that say where it runs, not what comes out.
_WHERE = {"accelerator", "devices"}


class Model(Section):
    """The network. Settings that an architecture does not use do not change its outputs' identity."""

    architecture: Literal["masked-mlp", "attention", "ensemble", "mlp", "boosted-trees", "random-forest"] = setting(
        "attention",
        "masked-mlp: values and missing bits; attention: feature-set embedding; "
        "ensemble: one perceptron per missing pattern; mlp: missing values filled in; "
        "boosted-trees, random-forest: decision trees",
    )
    heads: Literal["shared", "separate"] = setting("shared", "one network with six outputs, or six networks")
    dropout: Real = setting(0.1, "probability of dropping an activation in training", ge=0, lt=1)
    hidden: Counts = setting(
        (128, 128, 128), "masked-mlp, ensemble, mlp: widths of the hidden layers", min_length=1, max_length=16
    )
    imputation: Literal["mean", "regression"] = setting(
        "mean", "mlp: what stands for a missing value: the mean, or a linear regression on the other features"
    )
    embed_hidden: Counts = setting(
        (128,), "attention: hidden widths of the feature embedding", min_length=1, max_length=16
    )
    d_model: int = setting(32, "attention: width of a token; a multiple of num_heads", ge=1, le=4096)
    ff_hidden: int = setting(128, "attention: hidden width of an encoder block's feed-forward part", ge=1, le=8192)
    pool_hidden: Counts = setting(
        (64,), "attention: hidden widths of the attention pooling", min_length=1, max_length=16
    )
    head_hidden: Counts = setting((), "attention: hidden widths between pooling and outputs", max_length=16)
    num_heads: int = setting(2, "attention: heads per encoder block", ge=1, le=16)
    num_blocks: int = setting(2, "attention: encoder blocks", ge=1, le=24)
    rounds: int = setting(
        400, "boosted-trees: boosting rounds at most, each with a tree per output; ten are one epoch", ge=1, le=20_000
    )
    depth: int = setting(6, "boosted-trees: largest depth of a tree", ge=1, le=16)
    shrinkage: Real = setting(0.1, "boosted-trees: factor on what each round adds", gt=0, le=1)
    track_fraction: Real = setting(0.8, "boosted-trees: part of the training tracks drawn for a round", gt=0, le=1)
    trees: int = setting(100, "random-forest: trees at most; ten are one epoch", ge=1, le=10_000)
    leaves: int = setting(2000, "random-forest: leaves of a tree at most", ge=2, le=1_000_000)
    leaf_tracks: int = setting(5, "random-forest: tracks in a leaf at least", "tracks", ge=1, le=1_000_000)
    tree_tracks: int = setting(
        200_000, "random-forest: training tracks that ten trees are grown on at most", "tracks", ge=100, le=100_000_000
    )
    feature_fraction: Real = setting(0.5, "random-forest: part of the features tried at a split", gt=0, le=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model = {self.d_model} must be a multiple of num_heads = {self.num_heads}")
        return self

    def read(self) -> set[str]:
        """Return the names of the settings that this architecture reads."""
        own = {
            "masked-mlp": {"hidden", "dropout"},
            "ensemble": {"hidden", "dropout"},
            "mlp": {"hidden", "dropout", "imputation"},
            "attention": {
                "embed_hidden",
                "d_model",
                "ff_hidden",
                "pool_hidden",
                "head_hidden",
                "num_heads",
                "num_blocks",
                "dropout",
            },
            "boosted-trees": {"rounds", "depth", "shrinkage", "track_fraction"},
            "random-forest": {"trees", "leaves", "leaf_tracks", "tree_tracks", "feature_fraction"},
        }[self.architecture]
        return {"architecture", "heads"} | own

    def identity(self) -> dict[str, Any]:
        """Return the settings that this architecture reads."""
        return self.model_dump(mode="json", include=self.read())


class Training(Section):
    """How networks are trained. Fields marked *where* say where it runs, not what comes out."""

    batch_size: int = setting(512, "tracks per optimiser step", "tracks", ge=1, le=1_048_576)
    max_epochs: int = setting(40, "passes over the training sample at most", ge=1, le=1000)
    optimizer: Literal["adamw", "sgd"] = setting("adamw", "optimiser")
    learning_rate: Real = setting(2e-4, "initial (or, for one-cycle, largest) learning rate", gt=0, le=1)
    weight_decay: Real = setting(0.01, "decoupled weight decay", ge=0, le=1)
    schedule: Literal["exponential", "cosine", "one-cycle", "polynomial", "constant"] = setting(
        "exponential", "course of the learning rate"
    )
    gamma: Real = setting(0.9, "exponential: factor per epoch", ge=0, le=1)
    patience: int = setting(5, "epochs without improvement after which training stops", ge=1, le=1000)
    min_improvement: Real = setting(
        0.001, "relative decrease of the validation loss that counts as improvement", ge=0, le=1
    )
    gradient_clip: Real = setting(0.0, "largest gradient norm; 0 does not clip", ge=0)
    undersample: bool = setting(
        False, "equalise the number of tracks of every missing-detector combination; epochs take turns through them"
    )
    class_weights: Literal["none", "balanced"] = setting(
        "none", "balanced: every species, and all others together, weigh the same in the loss"
    )
    pattern_weights: Literal["none", "balanced"] = setting(
        "none", "balanced: every missing-detector combination weighs the same in the loss"
    )
    warm_start: str = setting(
        "", "start from these weights: output directory of Train, bundle, model.pt or last.ckpt", max_length=1024
    )
    objective: Literal["binary", "softmax"] = setting(
        "binary", "one yes-or-no question per species, or one choice among all"
    )
    precision: Annotated[Literal["32", "bf16-mixed", "16-mixed"], BeforeValidator(number_as_text)] = setting(
        "32", "arithmetic of the training"
    )
    compile: bool = setting(False, "compile the network before training (needs a C++ compiler)")
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "where: device to train on")
    devices: int = setting(1, "where: number of devices", ge=1, le=64)

    @model_validator(mode="after")
    def _balanced_once(self) -> Self:
        if self.undersample and self.pattern_weights != "none":
            raise ValueError("undersample and pattern_weights both balance missing patterns: choose one")
        return self

    def read_by(self, architecture: str) -> set[str]:
        """Return the names of the settings that are read where models of an architecture are trained."""
        return _OF_TREES if architecture in TREES else set(type(self).model_fields)

    def identity(self, architecture: str) -> dict[str, Any]:
        """Return the settings that change what comes out; weights to start from count by their content.

        Args:
            architecture: that of the model that is trained.

        Raises:
            WarmStartError: there are no weights where ``warm_start`` says.
        """
        own = self.model_dump(mode="json", include=self.read_by(architecture) - _WHERE)
        if "warm_start" not in own:
            return own
        return own | {"warm_start": [file_checksum(path) for path in weight_files(self.warm_start)]}


class Evaluation(Section):
    """How networks are judged."""

    pt_edges: Annotated[Reals, Field(min_length=2)] = setting(
        (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0),
        "edges of the transverse-momentum bins",
        "GeV/c",
    )
    nsigma: Real = setting(3.0, "largest |nσ| that the traditional selection accepts", "σ", gt=0, le=10)
    nsigma_combine_above: Real = setting(
        tracks.MomentumLimits().tof, "momentum above which nσ combines TPC and TOF", "GeV/c", ge=0
    )
    explain: bool = setting(False, "whether the job owes ExplainModel too; its report then shows feature importance")
    explain_tracks: int = setting(
        10_000, "test tracks on which ExplainModel measures feature importance", "tracks", ge=100, le=1_000_000
    )

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        if any(low >= high for low, high in zip(self.pt_edges, self.pt_edges[1:], strict=False)):
            raise ValueError("pt_edges must increase")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the settings that change figures of merit; those of ExplainModel are its own."""
        return self.model_dump(mode="json", exclude={"explain", "explain_tracks"})


class Export(Section):
    """How networks are written for deployment."""

    opset: int = setting(17, "ONNX operator set; O2's onnxruntime lags behind the newest", ge=17, le=23)
    ir_version: int = setting(9, "ONNX file format version", ge=8, le=13)
    tolerance: Real = setting(
        1e-5, "largest difference allowed between the exported and the trained network", gt=0, le=1e-2
    )
    check_tracks: int = setting(10_000, "validation tracks on which the export is compared", "tracks", ge=1)
