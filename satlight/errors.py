"""Errors meant for users: what was got, where, what is allowed, what to do."""


class SatlightError(ValueError):
    """A mistake in input, config or environment that the user can put right.

    The command line prints its message without a traceback.
    """
