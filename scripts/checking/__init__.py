"""Checks that are too long, or need too much, for the tests.

killing.py      runs that are killed and resumed (kill_and_resume.py)
targets.py      readers of files, and sound files for them (fuzz.py)
mutation.py     damages such files
fuzzing.py      the fuzzer, guided by coverage
stress.py       decoders with budgets on a busy machine (stress_auto.py)
load.py         makes this machine busy
gpu.py          what is promised of a GPU (check_gpu.py)
publishing.py   what is published of a run (publish_run.py)
results.py      published numbers, made again from the published rows (check_results.py)
"""
