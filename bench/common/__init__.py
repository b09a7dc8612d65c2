"""Used by all of bench: files, JSON, errors, signals, arguments, terminal. Imports none of it."""
