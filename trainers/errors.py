"""The one error a user is meant to read, what a disk refuses as such an error, and an early end that is no error."""

import errno
import re


class UserError(Exception):
    """Something the user can mend: what is wrong and where (`message`), and what to do about it (`hint`)."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class Overflowed(UserError):
    """Numbers of a run that are no longer finite; its last checkpoint is good."""

    def __init__(self, what: str, step: int | None = None):
        """`what` was found near that step, where it is known: "The loss became nan"."""
        hint = "The last checkpoint is good. Train again with a lower optimizer.rate, or in fp32 if it was in 16 bits."
        near = "" if step is None else f" near step {step}"
        super().__init__(f"{what}{near}: the adapter's numbers overflowed.", hint)


class Crowded(Exception):
    """A person wants the run to go on with less memory; everything is saved."""


class EndedEarly(Exception):
    """A person asked for the end while something takes long: there is nothing to save, or it is saved."""


DISK_ERRORS = {
    errno.ENOSPC: "The disk is full.",
    112: "The disk is full.",  # ERROR_DISK_FULL of Windows, as the safetensors library tells it
    errno.EIO: "The disk reports an error of its own.",
    errno.EFBIG: "The disk does not take a file of this size.",
    getattr(errno, "EDQUOT", -1): "Your account's share of the disk is used up.",
}


def disk_error(error: BaseException) -> UserError | None:
    """A full disk, a used-up quota or a file too large for its disk, in words; None for any other error.

    The safetensors library says the number only in its text: "No space left on device (os error 28)".
    """
    said = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(said[1]) if said else None
    return UserError(DISK_ERRORS[number]) if number in DISK_ERRORS else None
