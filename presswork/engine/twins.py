"""Twins: items of one step with the same prompt. The first is asked for, the others share what comes of it."""

from presswork.answers.outcomes import Outcome
from presswork.engine.generations import Recording
from presswork.engine.materials.items import Hit, Item


class Twins:
    """The prompts that are being asked for just now, each with the items that wait for the same answer."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._waiting: dict[str, list[Item]] = {}

    def joins(self, item: Item) -> bool:
        """Let an item wait if its prompt is being asked for already; if not, the item is the one that others join."""
        waiting = self._waiting.get(item.prompt.hash)
        if waiting is None:
            self._waiting[item.prompt.hash] = []
            return False
        waiting.append(item)
        return True

    def share(self, leader: Item, outcome: Outcome) -> bool:
        """Write an outcome for those that wait for it; whether there were any. Others may still join."""
        waiting = self._waiting.get(leader.prompt.hash, [])
        for item in waiting:
            self._recording.twin(item, leader, outcome)
        found = bool(waiting)
        waiting.clear()
        return found

    def end(self, prompt_hash: str) -> None:
        """Let nobody join any more."""
        self._waiting.pop(prompt_hash, None)

    def found(self, hit: Hit) -> None:
        """Write a hit for the item that was to be asked for, and for those that wait for it."""
        waiting = self._waiting.pop(hit.item.prompt.hash, [])
        self._recording.hits([hit, *(Hit(item, hit.source_id, hit.output_hash) for item in waiting)])
