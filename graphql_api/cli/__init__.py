"""The command line: a module for each group of commands, which imports what they run only when they run."""
