"""Tests that try to break the harness.

killing.py     runs that are killed and resumed (kill_and_resume.py)
targets.py     readers of files, and sound files for them (fuzz.py)
mutation.py    damages such files
fuzzing.py     the fuzzer, guided by coverage
"""
