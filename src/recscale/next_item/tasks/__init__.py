"""LSRM's five challenging tasks: test cases of a trained run, chosen, cut or disturbed; no training.

A module a task (`long_tail`, `cold_start`, `domains`, `robustness`, `trajectory`), each with one function
from a `Trained` run to its cases; `cases` asks the model, `point` writes a run's file, `table` gathers the
files of a study. Definitions in plain sentences: docs/method.md.
"""
