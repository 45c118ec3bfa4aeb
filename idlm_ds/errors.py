"""Errors that end a program with one line and an exit code."""

EXIT_UNEXPECTED = 1
"""Exit code of an error that none of these classes foresees."""


class UserError(ValueError):
    """Invalid input of the user.

    The message is one line that names the option, key or file, what is wrong and what is allowed.
    The launchers print it without a traceback and exit with code 2.
    """


class UnsafeCheckpointError(UserError):
    """A file contains something whose only use is to run code; nothing was run. Exit code 4."""


class NumericsError(RuntimeError):
    """A loss is not finite; no weight was changed by it. Exit code 6."""


class Preempted(BaseException):
    """A signal asked the run to end, and it did so in order. Exit code 75.

    It is no ``Exception``, so that nothing on its way takes it for a failure.
    """
