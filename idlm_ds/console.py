"""Lines for the user."""

import sys

from tqdm import tqdm


def say(text: str = "") -> None:
    """Write a line to standard output, above any progress bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
