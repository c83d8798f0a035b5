"""See README.md of this folder."""

from __future__ import annotations

from hyperbox_agent.apply.archive import Archive, Checkout
from hyperbox_agent.apply.batches import Applied, Outcome
from hyperbox_agent.apply.damage import Damage
from hyperbox_agent.apply.home import TreeState, default_home
from hyperbox_agent.apply.leftovers import Kept
from hyperbox_agent.apply.stage import Staged, Stager
from hyperbox_agent.apply.tree import Recovered, Tree

__all__ = ["Applied", "Archive", "Checkout", "Damage", "Kept", "Outcome", "Recovered", "Staged",
           "Stager", "Tree", "TreeState", "default_home"]
