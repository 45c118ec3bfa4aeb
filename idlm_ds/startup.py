"""What must be settled before torch and DeepSpeed are imported.

This module imports neither. Values the user has set are never changed for the program itself.
"""

import logging
import os
import warnings


def prepare_environment() -> None:
    """Set thread counts and quiet other libraries' start-up messages.

    Threads: the cores of the machine are divided among the processes on it. A waiting OpenMP
    thread sleeps instead of spinning; on a machine whose cores are also used by others, spinning
    makes training ten times slower.
    """
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    defaults = {
        "OMP_NUM_THREADS": str(max(1, (cores or 1) // local_world)),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
        "DEEPSPEED_LOG_LEVEL": "error",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


def keep_to_one_thread() -> None:
    """Let this process's tokenizer use one thread, being one of a process for each core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def is_first_rank() -> bool:
    """Whether this process speaks for the run, as far as its environment tells."""
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    """Number of processes, as the launcher set it."""
    return int(os.environ.get("WORLD_SIZE", "1"))
