"""What the programs that measure speed share; see ``bench_step.py`` and its neighbours."""
