"""Figures: tables in, PNG, PDF and the CSV of what is drawn out; no run is opened.

Read style.py (looks, writing) and marks.py (axes and symbols), then study.py, one function a figure.
"""
