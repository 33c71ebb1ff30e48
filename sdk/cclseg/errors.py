"""Every error that cclseg raises on purpose.

The tree (the builtin that each also is stands in brackets, so that plain handlers work)::

    CclsegError
    ├── SpecError (ValueError)             what a model says of itself is missing or contradictory
    ├── InputError (ValueError)            an argument, frame or file does not fit the model
    │   └── DatasetError                   a dataset folder is broken; names every offending file
    ├── SourceError (OSError)              frames cannot be read
    ├── SinkError (OSError)                results cannot be written
    ├── BackendError (RuntimeError)        a network cannot be loaded or run
    │   ├── EngineMismatchError            a compiled engine was made for another machine
    │   ├── UntrustedModelError            a model is unsigned or altered where that matters
    │   └── CudaError                      a CUDA call returned a failure status
    └── MissingDependencyError (ImportError)   an optional library is not installed

A message says what was found, what was expected, and what to do about it.
"""

from __future__ import annotations


class CclsegError(Exception):
    """Base class of all errors of this SDK."""


class SpecError(CclsegError, ValueError):
    """A model's description of itself is missing, malformed or contradictory."""


class InputError(CclsegError, ValueError):
    """An argument, frame or file does not fit what the model or function takes."""


class DatasetError(InputError):
    """A dataset folder is broken; the message names every offending file."""


class SourceError(CclsegError, OSError):
    """Frames cannot be read from a source."""


class SinkError(CclsegError, OSError):
    """Results cannot be written to a sink."""


class BackendError(CclsegError, RuntimeError):
    """A network cannot be loaded or run."""


class EngineMismatchError(BackendError):
    """A compiled engine was built for another machine, library version or plugin."""


class UntrustedModelError(BackendError):
    """A model is not signed with a key that this device trusts, or was altered since."""


class CudaError(BackendError):
    """A CUDA call returned a failure status."""


class MissingDependencyError(CclsegError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""

    @classmethod
    def for_extra(cls, library: str, *, extra: str, purpose: str) -> MissingDependencyError:
        """Builds the standard message.

        Args:
            library: Import name of the missing library.
            extra: The extra of the cclseg distribution that installs it.
            purpose: What it is needed for, as a noun phrase ("reading images").
        """
        return cls(
            f"{purpose} needs the library '{library}', which is not installed; "
            f'run: pip install "cclseg[{extra}]"'
        )
