"""The command line, one group of commands a module; ``run.py`` puts them together."""
