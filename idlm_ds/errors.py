"""Errors the launchers know how to end with."""


class UserError(ValueError):
    """Something the user typed or supplied cannot be used.

    The message is one line that names the thing, what is wrong with it and what is allowed. The
    launchers print it without a traceback and exit with code 2.
    """


class UnsafeCheckpointError(UserError):
    """A file holds what could only serve to run code; none of it has run. Exit code 4."""


class NumericsError(RuntimeError):
    """A loss is not finite; no weight has moved since the last good step."""
