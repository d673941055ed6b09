"""The one error a user is meant to read."""


class InputError(Exception):
    """Something a user gave is wrong; the message is one line naming file, key and what is legal.

    The command line prints it and exits with code 2; nothing has been half-written.
    """
