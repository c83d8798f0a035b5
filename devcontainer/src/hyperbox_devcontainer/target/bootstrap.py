"""The ``__main__.py`` of the agent's archive: unpack it once beside itself, and run from there.

Written for the target's interpreter (3.10 and newer), without any import of ours. A zip can't keep
bytecode, so an archive compiles all of its source at every start; unpacked, with bytecode that is
never compared with the source's time (the folder is named by content), the start is several times
faster. Packs also need real files: their shims are read by other interpreters.
"""

from __future__ import annotations

import os
import sys

KEPT = 3
"""Archives of earlier versions that may stay: an agent that still runs imports from its own."""


def folder_of(archive: str) -> str:
    """Where ``archive`` is unpacked to for this interpreter."""
    return f"{archive.removesuffix('.pyz')}-{sys.implementation.cache_tag}"


def unpack(archive: str, folder: str) -> None:
    """Make ``folder`` whole in one step. Raises OSError where nothing can be written there."""
    import py_compile
    import shutil
    import tempfile
    import zipfile

    making = tempfile.mkdtemp(prefix=".unpacking-", dir=os.path.dirname(folder))
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(making)
            names = packed.namelist()
        for name in names:
            if name.endswith(".py") and name != "__main__.py":
                source = os.path.join(making, name)
                try:
                    # The name that tracebacks show is the one it will have.
                    py_compile.compile(source, doraise=True, dfile=os.path.join(folder, name),
                                       invalidation_mode=py_compile.PycInvalidationMode.
                                       UNCHECKED_HASH)
                except py_compile.PyCompileError:
                    pass  # for an interpreter newer than this one, which will not import it either
        os.rename(making, folder)
    except BaseException as error:
        shutil.rmtree(making, ignore_errors=True)
        # Another start was quicker: its folder is as good.
        if not (isinstance(error, OSError) and os.path.isdir(folder)):
            raise


def tidy(archive: str) -> None:
    """Remove what versions long gone have left."""
    import shutil

    base = os.path.dirname(archive)
    found = [name for name in os.listdir(base)
             if name.startswith("hyperbox-agent-") and name.endswith(".pyz")]
    found.sort(key=lambda name: os.stat(os.path.join(base, name)).st_mtime, reverse=True)
    for old in found[KEPT:]:
        stem = old.removesuffix(".pyz")
        for name in os.listdir(base):
            if name.startswith(f"{stem}-"):
                shutil.rmtree(os.path.join(base, name), ignore_errors=True)
        os.unlink(os.path.join(base, old))


def place(archive: str) -> str:
    """What to import from: the unpacked folder, or the archive where none can be written."""
    folder = folder_of(archive)
    if not os.path.isdir(folder):
        try:
            unpack(archive, folder)
            tidy(archive)
        except OSError as error:
            sys.stderr.write(f"hyperbox-agent: runs packed, {folder}: {error.strerror}\n")
    return folder if os.path.isdir(folder) else archive


if __name__ == "__main__":
    sys.path[0] = place(os.path.dirname(os.path.abspath(__file__)))
    from hyperbox_agent.__main__ import main

    raise SystemExit(main())
