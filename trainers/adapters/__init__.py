"""What is trained: adapters of all types on the layers of a base model. Loads the libraries that they are made with."""

import trainers.libraries  # noqa: F401
