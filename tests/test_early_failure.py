"""Ranks that fail before they meet tell each other so without torch."""

import socket
import threading
import time

import pytest

from idlm_ds import early_failure

TEXT = "error: optim.lrr: unknown key; did you mean lr\n"


@pytest.fixture
def environ() -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def test_every_other_rank_is_told(environ):
    told = []
    first = threading.Thread(
        target=lambda: told.append(early_failure.tell_error(environ, 4, TEXT * 5000, seconds=30))
    )
    first.start()
    for _ in range(2):
        assert early_failure.ask_for_error(environ, seconds=20) == (4, TEXT * 5000)
    first.join(20)
    assert told == [True]


def test_the_first_rank_does_not_wait_for_ever(environ):
    began = time.monotonic()
    assert early_failure.tell_error(environ, 2, TEXT, seconds=0.2)
    assert time.monotonic() - began < 10


def test_a_taken_meeting_point_is_left_alone(environ):
    with socket.create_server(("", int(environ["MASTER_PORT"]))):
        assert not early_failure.tell_error(environ, 2, TEXT, seconds=5)
    torchrun = environ | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert not early_failure.tell_error(torchrun, 2, TEXT, seconds=5)


def test_a_first_rank_that_is_well_says_nothing(environ):
    assert early_failure.ask_for_error(environ, seconds=0.3) is None
    with socket.create_server(("127.0.0.1", int(environ["MASTER_PORT"]))):
        assert early_failure.ask_for_error(environ, seconds=5) is None


@pytest.mark.parametrize(
    "answer", [b"", b"5", b"HTTP/1.1 400\r\n", b"idlm_ds ", b"idlm_ds [2]", b"\xff"]
)
def test_what_another_program_says_is_no_failure(answer, environ):
    with socket.create_server(("127.0.0.1", int(environ["MASTER_PORT"]))) as other:

        def serve() -> None:
            peer, _ = other.accept()
            with peer:
                peer.sendall(answer)

        threading.Thread(target=serve).start()
        assert early_failure.ask_for_error(environ, seconds=5) is None
