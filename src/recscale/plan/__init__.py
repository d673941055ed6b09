"""What a study costs before it is run, and what a budget buys: a study and a device in, numbers out.

Read cost.py (the formulas), then plan.py (a study's runs). here.py measures this machine; budget.py
and forecast.py choose the best size by a fitted law.
"""
