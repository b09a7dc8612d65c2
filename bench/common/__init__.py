"""Used by all of bench: files, errors, signals, arguments, the terminal. Imports none of it."""
