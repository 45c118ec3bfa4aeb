"""Languages small enough that truth, teacher and few-step samplers are known exactly."""
