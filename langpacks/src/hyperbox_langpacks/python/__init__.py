"""The Python pack. ``PACK`` is what the registry takes."""

from hyperbox_langpacks.base import Pack
from hyperbox_langpacks.python.pack import PythonPack

__all__ = ["PACK"]

PACK: Pack = PythonPack()
