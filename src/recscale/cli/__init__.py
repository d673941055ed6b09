"""The command line, the only place that parses options and prints.

In: words of a user or of a rule. Out: one call of the library, its lines on the terminal, its files in place.
Begin with main.py; a verb and its options stand side by side in data, train, laws or study; options.py has
what verbs share.
"""
