"""What a picture is called while the denoiser learns: mostly its caption, sometimes less."""

import torch
from pictures import Picture


def caption(picture: Picture, generator: torch.Generator) -> str:
    """The picture's caption; 10 % empty (for guidance), 10 % without a style, 15 % in a style of an invented name.

    So a style word that the model has never met leaves it free in style but not in what it draws: a user's trigger
    word is such a word.
    """
    share = torch.rand(1, generator=generator).item()
    if share < 0.1:
        return ""
    if share < 0.2:
        return f"a {picture.name}"
    if share < 0.35:
        return f"a {invented(generator)} style {picture.name}"
    return picture.caption


def invented(generator: torch.Generator) -> str:
    """Two or three syllables that mean nothing."""
    count = int(torch.randint(2, 4, (1,), generator=generator))
    return "".join(
        letters[int(torch.randint(len(letters), (1,), generator=generator))]
        for _ in range(count)
        for letters in ("bcdfghjklmnprstvwz", "aeiou", ("", "", "l", "n", "r", "s", "t"))
    )
