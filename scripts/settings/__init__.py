"""The flags of scripts that have many: one frozen class a script, whose fields are its flags.

command_line.py   from a command line to such a class
training.py       of the scripts that train, fit and search
measuring.py      of the scripts that measure
checking.py       of the scripts that check
devices.py        the flag --device
step_numbers.py   a type of argument
report_files.py   the file with all numbers of a script that measures

Nothing in this package needs torch, so that --help answers at once.
"""
