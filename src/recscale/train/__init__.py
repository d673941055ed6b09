"""One run trained, whatever the problem: a run and its problem in, metrics.json and weights out.

Read train.py (who may write the folder, signals, the resume state), then loop.py (legs, steps, evaluations).
claim.py keeps a second process out, checkpoint.py is the resume state on disk, machine.py chooses how it is
computed here.
"""
