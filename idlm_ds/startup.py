"""Environment settings that must precede the import of torch and DeepSpeed.

This module imports neither. Variables that the user has set keep their values.
"""

import logging
import os
import warnings

from idlm_ds import early_failure, rendezvous


def prepare_environment() -> None:
    """Find this process's rank, set thread counts and silence start-up messages of libraries.

    The cores of the machine are divided among its processes. Waiting OpenMP threads spin for some
    microseconds, then sleep: on cores shared with other programs, spinning on makes training ten
    times slower, and on quiet cores sleeping at once costs small networks a fifth of their speed.

    Raises:
        UserError: The variables of the process group are wrong or not enough.
    """
    os.environ.update(rendezvous.missing_variables(os.environ))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    defaults = {
        "OMP_NUM_THREADS": str(max(1, (cores or 1) // local_world)),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "2000",
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
        "DEEPSPEED_LOG_LEVEL": "error",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


def keep_to_one_thread() -> None:
    """Limit the tokenizer of a worker process to one thread, as there is a worker per core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def rank() -> int:
    """Return this process's rank, 0 where none is set."""
    return _number("RANK", 0)


def is_first_rank() -> bool:
    """Tell whether this process has rank 0, according to its environment."""
    return rank() == 0


def world_size() -> int:
    """Return the number of processes that the launcher set."""
    return _number("WORLD_SIZE", 1)


def batch_job() -> str | None:
    """Return the number of the SLURM job that this process belongs to."""
    return os.environ.get("SLURM_JOB_ID")


def batch_restarts() -> int:
    """Return how often SLURM has started this job again."""
    return _number("SLURM_RESTART_COUNT", 0)


def tell_error(code: int, text: str, *, seconds: float) -> bool:
    """See ``early_failure.tell_error``."""
    return early_failure.tell_error(os.environ, code, text, seconds=seconds)


def ask_for_error(*, seconds: float) -> tuple[int, str] | None:
    """See ``early_failure.ask_for_error``."""
    return early_failure.ask_for_error(os.environ, seconds=seconds)


def _number(name: str, default: int) -> int:
    # What is no number has been refused before, and the refusal needs a rank to be printed.
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
