"""The one error a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: what is wrong and where (`message`), and what to do about it (`hint`)."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()
