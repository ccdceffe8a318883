"""The checkpoint out of the graphics memory while something long needs it, and back whatever became of that."""

from __future__ import annotations

import logging

from modules import sd_models, shared
from modules.call_queue import queue_lock

log = logging.getLogger("vitface")


class Room:
    """Where the checkpoint is. A failed move is told and harms nothing: the WebUI loads what it lacks."""

    def __init__(self) -> None:
        self._out = False

    def wanted(self) -> bool:
        """Whether there is graphics memory that is to be freed."""
        import torch

        return torch.cuda.is_available() and bool(shared.opts.data.get("vitface_free_memory", True))

    def make(self) -> None:
        """Moves the checkpoint out. Takes the queue's lock."""
        if not self.wanted():
            return
        with queue_lock:
            self._out = True
            try:
                sd_models.unload_model_weights()
            except Exception:
                log.exception("the checkpoint could not be moved out of the graphics memory")

    def give_back(self) -> None:
        """Moves it back. Takes the queue's lock."""
        with queue_lock:
            self.give_back_held()

    def give_back_held(self) -> None:
        """The same for who holds the lock already: a generation that comes while it is out cannot wait for the long work's end.

        What the WebUI offers for it in its settings and by its API; `reload_model_weights` would see the right checkpoint
        and leave it where it is.
        """
        if not self._out:
            return
        self._out = False
        try:
            sd_models.send_model_to_device(shared.sd_model)
        except Exception:
            log.exception("the checkpoint could not be moved back; load it again by choosing it")


room = Room()
