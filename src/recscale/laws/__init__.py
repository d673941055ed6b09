"""Scaling laws of any table of runs: x and y in, a fitted law with intervals and a status out.

Knows no study and no model. Read form.py and forms.py (what a law is), then fit.py (a fit from start to end),
result.py (what comes out); solver.py and intervals.py do the work; table.py takes a user's CSV.
frontier.py and isoflop.py are two ways to the best size for a budget, allocate.py compares them with the law.
"""
