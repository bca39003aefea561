"""The command line: one file for each command, which imports the library only when it runs."""
