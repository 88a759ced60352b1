"""The error that a user can mend."""


class UserError(ValueError):
    """Wrong input or settings: the message says in one line what came, what is allowed and what to do.

    The command line prints the message alone and exits with code 2; `--debug` shows the traceback.
    """
