"""A study on a cluster: what a job asks for, one watched attempt, and where every run stands.

Read request.py and attempt.py, which rule train uses. status.py and doctor.py tell a user what is; slurm.py
is what SLURM is asked.
"""
