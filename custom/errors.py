"""The errors that a user can correct. Each is a sentence that names the file and what to do.

BrainMRIError
├── DataError              a scan or data set that cannot be used as it is
│   └── MissingDataError   a folder or file that does not exist where it was expected
├── CheckpointError        weights that are missing, damaged or of another network
├── WriteError             a full disk, or a name that the file system does not take
└── ConfigError            an unknown option, or a value of the wrong kind
"""

import errno
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


class WriteError(BrainMRIError):
    """A file that could not be written: the disk is full, or the name is too long."""

    @classmethod
    def of_full_disk(cls, path: object) -> "WriteError":
        """The sentence for a file that did not fit."""
        return cls(f"{path} could not be written, because the disk is full. Free some space, then run it again.")


class ConfigError(BrainMRIError, ValueError):
    """An unknown option, a value of the wrong kind, or a device that does not exist."""


_KINDS = (BrainMRIError, DataError, MissingDataError, CheckpointError, WriteError, ConfigError)
_CLASSES = {kind.__name__: kind for kind in _KINDS}


def find_cause(error: BaseException) -> BrainMRIError | None:
    """The first BrainMRIError among an exception and its causes (MONAI and Ignite wrap what transforms raise).

    An error of missing memory counts as DataError.
    The system's errors for a full disk and for a name that is too long count as WriteError, wherever they come from.
    PyTorch passes an error of a data loader's process on as text only. A BrainMRIError that is raised in a child
    process carries its class and sentence as a marked note, which is part of that text.
    """
    cause: BaseException | None = error
    while cause is not None:
        if marked := _from_worker(str(cause)):
            return marked
        if isinstance(cause, BrainMRIError):
            return cause
        if is_out_of_memory(cause):
            reason = str(cause).strip().splitlines()[0][:200] if str(cause).strip() else "no more can be allocated"
            return DataError(f"The memory is not enough ({reason}). Use a smaller scan or batch, or a larger machine.")
        if isinstance(cause, OSError) and (sentence := _of_system(cause)):
            return sentence
        cause = cause.__cause__ or cause.__context__
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was missing, of a GPU or the CPU: torch raises a RuntimeError for that."""
    texts = ("out of memory", "allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )


def _of_system(error: OSError) -> WriteError | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WriteError.of_full_disk(error.filename or "A file")
    if error.errno == errno.ENAMETOOLONG:
        name = error.filename2 or error.filename  # of a rename the new one
        return WriteError(f"The name {name} is too long for the file system. Use a shorter one.")
    return None


def _from_worker(text: str) -> BrainMRIError | None:
    """The error whose note is a line of a text."""
    for line in text.splitlines():
        _, mark, content = line.partition(_MARK)
        if mark:
            name, sentence = json.loads(content)
            return _CLASSES[name](sentence)
    return None
