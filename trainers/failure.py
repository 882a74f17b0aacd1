"""Whatever goes wrong, in words."""

from trainers.errors import UserError, disk_error

# What a RuntimeError says: torch's allocators for CPUs and Macs, the drivers of cards, and their libraries.
SAID_BY = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED", "OUT_OF_DEVICE_MEMORY", "OUT_OF_HOST_MEMORY")


def is_out_of_memory(error: BaseException) -> bool:
    """On a device or in the computer: torch's own error, Python's, or what others say."""
    if isinstance(error, RuntimeError) and any(name in str(error) for name in SAID_BY):
        return True
    return type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)


def in_words(error: Exception, story: str) -> UserError:
    """Any error as one that a person can read; `story` names the file with the whole story of an unexpected one."""
    if isinstance(error, UserError):
        return error
    if disk := disk_error(error):
        return UserError(disk.message, "Make room and resume: the run goes on from its last checkpoint.")
    if is_out_of_memory(error):
        hint = "Lower data.resolution or adapter.rank; without memory.retry, raise memory.parts first."
        return UserError(f"The memory ran out ({(str(error).splitlines() or ['no number'])[0][:160]}).", hint)
    if isinstance(error, OSError) and error.filename:
        hint = "Check that it is there and that your account may read and write it, then resume."
        return UserError(f"{error.filename}: {error.strerror or error}.", hint)
    words = f"Something unexpected went wrong: {type(error).__name__}: {error}"
    return UserError(words, f"The whole story is in {story}.")
