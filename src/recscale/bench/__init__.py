"""How fast it is here: sizes in, rates against the machine and other libraries out.

Read compare.py (rounds and ratios), then measure.py (one measurement, in a process of its own).
"""
