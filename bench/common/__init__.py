"""What every room uses: files, errors, signals, arguments, the terminal. Imports no other room."""
