"""Request duplicates once: the first item with a prompt is sent, and the others in its step share the outcome."""

from presswork.answers.outcomes import Outcome
from presswork.engine.generations import Recording
from presswork.engine.materials.items import Hit, Item


class Twins:
    """The prompts that are being requested now, each with the duplicates that wait for the same answer."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._waiting: dict[str, list[Item]] = {}

    def joins(self, item: Item) -> bool:
        """Return whether an item now waits for another one with its prompt; if not, later ones wait for this item."""
        waiting = self._waiting.get(item.prompt.hash)
        if waiting is None:
            self._waiting[item.prompt.hash] = []
            return False
        waiting.append(item)
        return True

    def share(self, leader: Item, outcome: Outcome) -> bool:
        """Write an outcome for the items that wait for it; returns whether there were any. Others may still join."""
        waiting = self._waiting.get(leader.prompt.hash, [])
        for item in waiting:
            self._recording.twin(item, leader, outcome)
        found = bool(waiting)
        waiting.clear()
        return found

    def end(self, prompt_hash: str) -> None:
        """Let no more items join."""
        self._waiting.pop(prompt_hash, None)

    def found(self, hit: Hit) -> None:
        """Write a hit for the first item and for those that wait for it."""
        waiting = self._waiting.pop(hit.item.prompt.hash, [])
        self._recording.hits([hit, *(Hit(item, hit.source_id, hit.output_hash) for item in waiting)])
