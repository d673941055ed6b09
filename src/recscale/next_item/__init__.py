"""The next item of a sequence: interactions in, a trained and evaluated recommender out.

Read prepare.py (interactions to sequences), sequences.py (in memory), models/decoder.py, loss.py and then
evaluate.py. tasks/ is what is done with a trained run; references.py needs none.
"""
