"""Failures before the processes have met, told without torch.

A mistake in a recipe is found in a second, while torch and the store in which processes meet take
many to import. The first rank that fails so early answers at the meeting point in place of the
store: whoever connects is told, before it asks anything, what has failed.
"""

import json
import socket
import time
from collections.abc import Mapping

Environment = Mapping[str, str]

GREETING = b"idlm_ds "
ANSWER_S = 0.3
"""How long a rank that has failed may take to say so to one that connects."""


def tell_error(environ: Environment, code: int, text: str, *, seconds: float) -> bool:
    """Tell every process that comes to the meeting point that the first rank has failed.

    For errors before the processes have met: torch, whose store they meet in, takes seconds to
    import, and much longer from a network file system.

    Args:
        environ: The environment of rank 0.
        code: Exit code.
        text: What rank 0 has printed.
        seconds: How long to wait for the other processes at most.

    Returns:
        Whether this process could take the meeting point; torchrun has it for itself.
    """
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return False
    deadline = time.monotonic() + seconds
    record = GREETING + json.dumps([code, text]).encode()
    try:
        server = socket.create_server(("", int(environ["MASTER_PORT"])))
    except (OSError, KeyError, ValueError):
        return False
    with server:
        for _ in range(int(environ["WORLD_SIZE"]) - 1):
            server.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                peer, _ = server.accept()
                with peer:
                    peer.sendall(record)
            except TimeoutError:
                break
            except OSError:
                continue
    return True


def ask_for_error(environ: Environment, *, seconds: float) -> tuple[int, str] | None:
    """Ask at the meeting point whether the first rank has failed before it met anyone.

    Args:
        environ: The environment of another rank.
        seconds: How long to wait for an answer at most.

    Returns:
        Its exit code and what it printed; None if it is well, or does not answer in time.
    """
    deadline = time.monotonic() + seconds
    address = environ.get("MASTER_ADDR", ""), int(environ.get("MASTER_PORT", "0"))
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(address, timeout=max(0.1, seconds)) as peer:
                return read_error(peer)
        except OSError:
            time.sleep(0.1)
    return None


def read_error(peer: socket.socket) -> tuple[int, str] | None:
    """Read what ``tell_error`` sends; None where the store answers, which waits to be asked."""
    peer.settimeout(ANSWER_S)
    data = b""
    try:
        while part := peer.recv(1 << 16):
            data += part
        if not data.startswith(GREETING):
            return None
        code, text = json.loads(data.removeprefix(GREETING))
    except (OSError, ValueError):
        return None
    return int(code), str(text)
