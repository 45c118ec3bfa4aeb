"""Environment settings that must precede the import of torch and DeepSpeed.

This module imports neither. Variables that the user has set keep their values.
"""

import logging
import os
import warnings


def prepare_environment() -> None:
    """Set thread counts and silence the start-up messages of other libraries.

    The cores of the machine are divided among its processes. Waiting OpenMP threads spin for some
    microseconds, then sleep: on cores shared with other programs, spinning on makes training ten
    times slower, and on quiet cores sleeping at once costs small networks a fifth of their speed.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    defaults = {
        "OMP_NUM_THREADS": str(max(1, (cores or 1) // local_world_size())),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "2000",
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
        "DEEPSPEED_LOG_LEVEL": "error",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


def keep_to_one_thread() -> None:
    """Limit the tokenizer of a worker process to one thread, as there is a worker per core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def is_first_rank() -> bool:
    """Tell whether this process has rank 0, according to its environment."""
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    """Return the number of processes that the launcher set."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Return the number of processes on this host that the launcher set."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
