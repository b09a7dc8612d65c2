"""The harness: models on disk, questions, time and records.

python -m bench.run --decoder greedy,static,dynamic
python -m bench.report results/<run>
python -m bench.fetch mt_bench
"""
