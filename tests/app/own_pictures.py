"""What a project's own folder of pictures holds."""

from pathlib import Path

from app.projects import Project


def held(project: Project) -> dict[str, str | None]:
    """Picture -> caption; no other file may be there."""
    files = sorted(Path(project.pictures).iterdir())
    pictures = [file for file in files if file.suffix != ".txt"]
    captions = {file.stem: file.read_text("utf-8") for file in files if file.suffix == ".txt"}
    assert captions.keys() <= {picture.stem for picture in pictures}
    return {picture.name: captions.get(picture.stem) for picture in pictures}
