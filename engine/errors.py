"""The errors that fc7 raises on purpose: one line each, naming the cause and the cure.

Fc7Error
├── SourceError        the data cannot be listed or opened
├── BadImage           one row's image cannot be used; its row stays, with this status
├── ModelError         the network or its weights cannot be loaded
│   ├── LayerError     no such layer; names the ones there are
│   └── QuestionError  it has no answer: no gradient to the pixels, no ReLU, no averaged maps
├── OptionError        what was asked for is out of range
└── StoreError         a run cannot be read, written or continued
    └── FingerprintError   the job differs from the one on disk; names what changed

The command line prints the message of any of them and exits with status 1, or 2 where what was
asked for cannot be had of this network (`ASKED_WRONG`); everything else is a defect and shows its
traceback. `fc7.indexing` stands below the engine and raises its own
`IndexingError`, a ValueError.
"""

from typing import Literal, get_args

BadStatus = Literal["empty", "truncated", "not-an-image", "too-large", "unreadable", "missing"]
BAD_STATUSES: tuple[BadStatus, ...] = get_args(BadStatus)


class Fc7Error(Exception):
    """Something the caller can mend; `str()` is one line with the cause and the cure."""


class SourceError(Fc7Error):
    """The data set cannot be listed or opened."""


class ModelError(Fc7Error):
    """The network or its weights cannot be loaded."""


class LayerError(ModelError):
    """The network has no layer of that name."""


class QuestionError(ModelError):
    """The network has no answer to what is asked: it is built differently."""


class OptionError(Fc7Error):
    """What was asked for is out of range, or does not go together."""


ASKED_WRONG = (LayerError, QuestionError, OptionError)
"""Errors that are the question's: another question would be answered."""


class StoreError(Fc7Error):
    """A run cannot be read, written or continued."""


class FingerprintError(StoreError):
    """A job differs from the one of the same name on disk."""


class BadImage(Fc7Error):  # noqa: N818 - the row is bad, the program is not in error
    """One row's image cannot be used.

    Args:
        status: the short word kept in the run's rows table.
        detail: one line that says what was found.
    """

    def __init__(self, status: BadStatus, detail: str) -> None:
        super().__init__(detail)
        self.status: BadStatus = status
