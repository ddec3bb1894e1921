"""The one exception family: what failed, which file or key, and what to do about it.

Every error has a stable ``code`` (documented in ``docs/errors.md``) that scripts may rely on, and a text made of up to
three parts: what failed, what was found or is allowed, and the action that helps.
"""

from __future__ import annotations


class PidmlError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what failed, naming the file, key or address concerned.
        hint: what the reader can do about it, as an imperative sentence.
    """

    code = "P000"

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(what)

    def __reduce__(self) -> tuple[type[PidmlError], tuple[str, str]]:
        return (type(self), (self.what, self.hint))

    def __str__(self) -> str:
        text = f"[{self.code}] {self.what}"
        return f"{text}\n  → {self.hint}" if self.hint else text


class SpecError(PidmlError):
    """A job specification holds an unknown key, a wrong type, a value out of range or a bad combination."""

    code = "P100"


class UnknownJob(PidmlError):
    """The job named is neither a preset, nor a file, nor a claimed job."""

    code = "P101"


class StoreError(PidmlError):
    """The store cannot be read or written."""

    code = "P200"


class DiskFull(StoreError):
    """The disk or quota behind the store is full."""

    code = "P201"


class DownloadError(PidmlError):
    """An input file could not be fetched."""

    code = "P300"


class InputMissing(DownloadError):
    """An input file does not exist where it is said to be."""

    code = "P301"


class ChecksumMismatch(DownloadError):
    """A fetched file has another size or checksum than the catalogue says."""

    code = "P302"


class PathRefused(DownloadError):
    """A path or address is malformed or outside the places the operator allows."""

    code = "P303"


class TableError(PidmlError):
    """A ROOT file or a table in it cannot be used."""

    code = "P400"


class CorruptFile(TableError):
    """A file is truncated, damaged or not a ROOT file."""

    code = "P401"


class NoTables(TableError):
    """A file holds no ``DF_`` directories or none of the tables looked for."""

    code = "P402"


class MissingColumn(TableError):
    """A table lacks a column that is needed."""

    code = "P403"


class NoTracks(TableError):
    """No track is left where some are needed."""

    code = "P404"


class BadValues(TableError):
    """A column holds values that cannot be (infinite or NaN momenta, for example)."""

    code = "P405"


class UselessFeature(TableError):
    """A feature is missing for every track, or has the same value for all: there is nothing to learn from it."""

    code = "P406"


class ProducerError(PidmlError):
    """The track-table producer failed or made something else than a track table."""

    code = "P500"


class StepKilled(PidmlError):
    """The process of a step was killed; most often memory ran out."""

    code = "P210"


class TrainingError(PidmlError):
    """A training cannot start or go on."""

    code = "P600"


class SpeciesAbsent(TrainingError):
    """A species to be identified has no example (or nothing else has one) in a sample."""

    code = "P601"


class Diverged(TrainingError):
    """The loss became NaN or infinite."""

    code = "P602"


class GpuUnavailable(TrainingError):
    """A training asks for GPUs that this machine does not have or that others use."""

    code = "P603"


class Interrupted(TrainingError):
    """A training was asked to stop; the next run goes on from its last checkpoint."""

    code = "P604"


class NoLabels(TrainingError):
    """Experimental data is given where the species of each track must be known."""

    code = "P605"


class OutOfMemory(TrainingError):
    """Memory ran out in a training, and smaller parts of a batch did not help or are not possible."""

    code = "P606"


class WarmStartError(TrainingError):
    """The weights that a training shall start from do not exist or belong to another network."""

    code = "P607"


class DomainsDiffer(TrainingError):
    """What is missing in simulation and in experimental data gives away which is which: adaptation would hide it."""

    code = "P608"


class UnfairComparison(PidmlError):
    """Models cannot be compared: one saw test tracks in training, or their data differ."""

    code = "P650"


class ExportError(PidmlError):
    """A network could not be exported, or its export does not reproduce it."""

    code = "P700"


class BundleError(PidmlError):
    """A bundle is incomplete, damaged or does not fit the data it is applied to."""

    code = "P701"


class ServerError(PidmlError):
    """The AliceTraINT server cannot be reached or answers what the protocol does not allow."""

    code = "P800"
    #: Seconds after which the server asked to come back, if it did.
    retry_after: float | None = None


class ServerRefused(ServerError):
    """The server refuses the machine's key or what was sent; trying again does not help."""

    code = "P801"


class KeyRefused(ServerRefused):
    """The server (or a proxy before it) does not accept this machine's key; a person has to act, then it goes on."""

    code = "P802"


class AnswerLost(ServerError):
    """A request may have reached the server, but its answer did not come back whole."""

    code = "P803"


class ConfigError(PidmlError):
    """The machine's own configuration (environment, ``.env``, profile) is incomplete or wrong."""

    code = "P900"


class ToolMissing(ConfigError):
    """A program or optional package that is needed is not installed."""

    code = "P901"


class BatchError(PidmlError):
    """Jobs of a step failed on the batch system, or it cannot be used."""

    code = "P910"


class BatchUnavailable(BatchError):
    """The batch system does not answer, or another process looks after a step's jobs: both pass by themselves."""

    code = "P911"


#: Codes of errors that may pass without anybody changing the job: a poller tries it again.
TRANSIENT_CODES = frozenset(
    {
        *(StoreError.code, DiskFull.code, StepKilled.code, DownloadError.code, ChecksumMismatch.code),
        *(ServerError.code, KeyRefused.code, AnswerLost.code, BatchUnavailable.code),
    }
)
