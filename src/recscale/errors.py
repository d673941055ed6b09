"""What ends a command in one line."""


class InputError(Exception):
    """Something a user gave is wrong; the message is one line naming file, key and what is legal.

    The command line prints it and exits with code 2; nothing has been half-written.
    """


class Interrupted(Exception):
    """A run was asked to stop, is saved and can be continued; the message says where. Exit code 75."""
