"""The errors that a user can mend, each one sentence that names the file and the remedy.

BrainMRIError
├── DataError              a scan or data set that can't be used as it is
│   └── MissingDataError   a folder or file that isn't where it should be
├── CheckpointError        weights that are missing, damaged or another network's
└── ConfigError            a setting that no bundle has, or of the wrong kind
"""

import re

_FROM_A_WORKER = re.compile(r"^custom\.errors\.(\w+): (.+)$", re.MULTILINE)


class BrainMRIError(Exception):
    """Base of all errors that `brainmri` prints as one sentence, without a traceback."""


class DataError(BrainMRIError):
    """A scan or data set that can't be used as it is."""


class MissingDataError(DataError):
    """A folder or file that isn't where it should be."""


class CheckpointError(BrainMRIError):
    """Weights that are missing, damaged, or made for another network."""


class ConfigError(BrainMRIError, ValueError):
    """A setting that no bundle has, a value of the wrong kind, or a device that isn't there."""


def find_cause(error: BaseException) -> BrainMRIError | None:
    """The first BrainMRIError among an exception and its causes (MONAI and Ignite wrap what transforms raise).

    What a data loader's process raised comes as an error of another kind with the traceback as its text.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BrainMRIError):
            return seen
        if "DataLoader worker process" in str(seen) and (found := _FROM_A_WORKER.search(str(seen))):
            return globals()[found[1]](found[2])
        seen = seen.__cause__ or seen.__context__
    return None
