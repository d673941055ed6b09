"""What is asked for, in plain values: a study file in, its runs, laws, figures and tasks out.

Imports no numpy, pandas or torch, for Snakemake reads it at every start. Read study.py (the file), then
run.py (one training). folder.py knows the files of a run; schemas/ has what may stand in each file.
"""
