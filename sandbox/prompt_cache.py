"""Account for the prompt cache: the cached prefixes, their age, and what each request reads and writes.

The rules are the API's: at most 4 breakpoints, a minimum length for each model, a ttl of 5 minutes or an hour that a
read renews, a look back of 20 blocks from each breakpoint, and an entry that can be read only after the answer that
writes it has started. Two switches make it as unreliable as users see it: entries that appear late, and misses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sandbox.draws import digest
from sandbox.known import ServedModel

TTL_SECONDS = {"5m": 300.0, "1h": 3600.0}
_LOOK_BACK = 20
_SWEEP_AT = 50_000


@dataclass(frozen=True, slots=True)
class CacheBlock:
    """A part of a prompt: its canonical content, its tokens, and the ttl if it has a breakpoint."""

    content: bytes
    tokens: int
    ttl: str | None = None


@dataclass(slots=True)
class Account:
    """How a request's input is counted: read from the cache, written to it, or neither."""

    input_tokens: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0
    entries: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def written(self) -> int:
        """Tokens written for both ttls."""
        return self.written_5m + self.written_1h


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached prefix, and the clock times between which it can be read."""

    readable_at: float
    expires_at: float
    ttl: str


class PromptCache:
    """The cached prefixes. Times are the clock's seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start empty; the clock gives seconds since any moment."""
        self._clock = clock
        self._entries: dict[bytes, Entry] = {}

    def account(self, model: ServedModel, blocks: Sequence[CacheBlock], *, misses: bool = False) -> Account:
        """Count a request against the entries that it can read now, none if it misses. Only `begin` writes."""
        marks = [i for i, block in enumerate(blocks) if block.ttl]
        total = sum(block.tokens for block in blocks)
        if not marks:
            return Account(total)
        keys, sums = _prefixes(model, blocks)
        hit = -1 if misses else self._longest_hit(keys, marks)
        account = Account(total, read=sums[hit] if hit >= 0 else 0)
        if hit >= 0:
            account.entries.append((keys[hit], self._entries[keys[hit]].ttl))
        done = account.read
        for mark in marks:
            if mark > hit and sums[mark] >= model.cache_minimum:
                ttl = blocks[mark].ttl or "5m"
                account.written_5m += sums[mark] - done if ttl == "5m" else 0
                account.written_1h += sums[mark] - done if ttl == "1h" else 0
                account.entries.append((keys[mark], ttl))
                done = sums[mark]
        account.input_tokens = total - done
        return account

    def begin(self, account: Account, delay_s: float = 0.0) -> None:
        """Start the answer: its writes can be read after the delay, and its reads are renewed."""
        if not account.entries:
            return
        now = self._clock()
        for key, ttl in account.entries:
            before = self._entries.get(key)
            # A second writer does not delay the moment when the first one's entry can be read.
            lives = before is not None and before.expires_at > now
            readable_at = before.readable_at if before is not None and lives else now + delay_s
            self._entries[key] = Entry(readable_at, now + TTL_SECONDS[ttl], ttl)
        if len(self._entries) > _SWEEP_AT:
            self._entries = {key: entry for key, entry in self._entries.items() if entry.expires_at > now}

    def _longest_hit(self, keys: Sequence[bytes], marks: Sequence[int]) -> int:
        now = self._clock()
        for mark in reversed(marks):
            for i in range(mark, max(-1, mark - _LOOK_BACK), -1):
                entry = self._entries.get(keys[i])
                if entry is not None and entry.readable_at <= now < entry.expires_at:
                    return i
        return -1


def _prefixes(model: ServedModel, blocks: Sequence[CacheBlock]) -> tuple[list[bytes], list[int]]:
    keys, sums = [], []
    key, tokens = model.id.encode(), 0
    for block in blocks:
        key = digest(key, block.content)
        tokens += block.tokens
        keys.append(key)
        sums.append(tokens)
    return keys, sums
