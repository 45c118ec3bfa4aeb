"""Atomic file writes."""

import os
import uuid
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write a temporary file and rename it to ``path``; missing parent folders are created.

    After a crash, ``path`` has either its old content or its new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unlike tempfile's, such a file has the mode that the user's umask asks for.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
