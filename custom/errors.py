"""The errors that a user can correct. Each is a sentence that names the file and what to do.

BrainMRIError
├── DataError              a scan or data set that cannot be used as it is
│   └── MissingDataError   a folder or file that does not exist where it was expected
├── CheckpointError        weights that are missing, damaged or of another network
└── ConfigError            an unknown option, or a value of the wrong kind
"""

import json
import multiprocessing

_MARK = "brainmri error: "  # before an error's class and text as JSON, in the text of what a worker process raised


class BrainMRIError(Exception):
    """Base of all errors that `brainmri` prints as one sentence, without a traceback."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        if multiprocessing.parent_process() is not None:  # a data loader passes errors on as text: see find_cause
            self.add_note(_MARK + json.dumps([type(self).__name__, str(self)]))


class DataError(BrainMRIError):
    """A scan or data set that cannot be used as it is."""


class MissingDataError(DataError):
    """A folder or file that does not exist where it was expected."""


class CheckpointError(BrainMRIError):
    """Weights that are missing, damaged, or of another network."""


class ConfigError(BrainMRIError, ValueError):
    """An unknown option, a value of the wrong kind, or a device that does not exist."""


_CLASSES = {kind.__name__: kind for kind in (BrainMRIError, DataError, MissingDataError, CheckpointError, ConfigError)}


def find_cause(error: BaseException) -> BrainMRIError | None:
    """The first BrainMRIError among an exception and its causes (MONAI and Ignite wrap what transforms raise).

    An error of missing memory becomes a DataError.

    PyTorch passes an error of a data loader's process on as text only. A BrainMRIError that is raised in a child
    process carries its class and sentence as a marked note, which is part of that text.
    """
    cause: BaseException | None = error
    while cause is not None:
        if marked := _from_worker(str(cause)):
            return marked
        if isinstance(cause, BrainMRIError):
            return cause
        if _is_memory(cause):
            reason = str(cause).strip().splitlines()[0][:200] if str(cause).strip() else "no more can be allocated"
            return DataError(f"The memory is not enough ({reason}). Use a smaller scan or batch, or a larger machine.")
        cause = cause.__cause__ or cause.__context__
    return None


def _is_memory(error: BaseException) -> bool:
    """Whether memory was missing: torch raises a RuntimeError for that."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("allocate memory" in text or "out of memory" in text)
    )


def _from_worker(text: str) -> BrainMRIError | None:
    """The error whose note is a line of a text."""
    for line in text.splitlines():
        _, mark, content = line.partition(_MARK)
        if mark:
            name, sentence = json.loads(content)
            return _CLASSES[name](sentence)
    return None
