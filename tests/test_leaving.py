"""A process leaves with its code and its output, whatever else it is doing."""

import subprocess
import sys
import types

import pytest

from idlm_ds import cli


def run(code: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys, threading, time\nfrom idlm_ds.leaving import exit_now, exit_within\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_a_process_leaves_at_once_with_what_it_has_printed():
    done = run(
        "threading.Thread(target=time.sleep, args=(50,)).start()\n"
        "sys.stdout.write('said')\n"
        "exit_now(75)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (75, "said", "")


def test_any_thread_can_end_the_process():
    done = run("threading.Thread(target=exit_now, args=(6,)).start()\ntime.sleep(50)")
    assert done.returncode == 6


def test_a_process_that_waits_is_ended_in_time():
    assert run("exit_within(0.2, 2)\ntime.sleep(50)").returncode == 2


def test_a_closed_output_changes_no_exit_code():
    assert run("sys.stdout.close()\nexit_now(4)").returncode == 4


def test_a_program_waits_for_no_thread_and_its_exit_handlers_run(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import atexit, threading, time\n"
        "from idlm_ds.cli import launch\n"
        "def main(argv):\n"
        "    threading.Thread(target=time.sleep, args=(50,)).start()\n"
        "    atexit.register(print, 'handled')\n"
        "    print('done', *argv)\n"
        "launch(main)\n"
    )
    command = [sys.executable, str(program), "well"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done well\nhandled\n", "")


def test_called_from_other_code_a_main_ends_in_an_exception(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as ended:
        cli.launch(lambda argv: None)
    assert ended.value.code == 0


def test_torch_whose_import_was_ended_is_not_imported_again(monkeypatch: pytest.MonkeyPatch):
    assert cli._failure_module() is sys.modules["idlm_ds.engine.failure"]
    monkeypatch.setitem(sys.modules, "torch.half", types.ModuleType("torch.half"))
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "idlm_ds.engine.failure")
    assert cli._failure_module() is None
    assert "torch" not in sys.modules


def test_torch_that_cannot_be_imported_leaves_an_error_to_be_said(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(cli, "import_module", missing)
    assert cli._failure_module() is None
