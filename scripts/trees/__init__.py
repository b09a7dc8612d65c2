"""Trees of single answers.

recording.py   of a finished run's answers, into its folder (record_trees.py)
pictures.py    drawn (show_tree.py)
"""
