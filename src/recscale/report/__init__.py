"""What came out of a study: folders of runs in; tables, laws, figures and a page out.

Read points.py (one row a run), laws.py, then figures/study.py; publish.py keeps what can be committed.
"""
