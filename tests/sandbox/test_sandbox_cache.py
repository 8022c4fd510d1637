"""The prompt cache's accounts: minimum, ttl, writes, reads, and what can be read when."""

import asyncio
from typing import Any

import pytest
from anthropic import AsyncAnthropic

from sandbox import Sandbox
from sandbox.known import find_model
from sandbox.prompt_cache import Account, CacheBlock, PromptCache

SONNET, HAIKU = find_model("claude-sonnet-4-6"), find_model("claude-haiku-4-5")
LONG = "Our shop sells tea from small gardens. " * 120  # 1,170 tokens


def asked(system: Any, **changes: Any) -> dict[str, Any]:
    user = {"role": "user", "content": "Name: Oolong"}
    return {"model": SONNET.id, "max_tokens": 200, "system": system, "messages": [user]} | changes


def marked(text: str, ttl: str = "5m") -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": ttl}}


def took(account: Account) -> tuple[int, int, int, int]:
    return account.input_tokens, account.written_5m, account.written_1h, account.read


async def test_first_request_writes_and_the_next_reads(client: AsyncAnthropic) -> None:
    first = (await client.messages.create(**asked([marked(LONG)]))).usage
    second = (await client.messages.create(**asked([marked(LONG)]))).usage
    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_5m_input_tokens == first.cache_creation_input_tokens
    assert (first.cache_creation_input_tokens or 0) > 1024
    assert first.cache_read_input_tokens == 0
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert second.cache_creation_input_tokens == 0
    assert first.input_tokens == second.input_tokens < 20


async def test_hour_long_entries_are_counted_apart(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    usage = (await client.messages.create(**asked([marked(LONG, "1h")]))).usage
    assert usage.cache_creation is not None
    assert usage.cache_creation.ephemeral_1h_input_tokens == usage.cache_creation_input_tokens
    assert sandbox.stats()["served"]["cache_creation_1h_tokens"] == usage.cache_creation_input_tokens


async def test_top_level_cache_control_marks_the_last_block(client: AsyncAnthropic) -> None:
    changes: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
    usage = (await client.messages.create(**asked(LONG, **changes))).usage
    assert usage.input_tokens == 0
    assert (usage.cache_creation_input_tokens or 0) > 1024


async def test_max_tokens_0_warms_the_cache(client: AsyncAnthropic) -> None:
    warm = await client.messages.create(**asked([marked(LONG)], max_tokens=0))
    assert (warm.content, warm.usage.output_tokens) == ([], 0)
    assert (await client.messages.create(**asked([marked(LONG)]))).usage.cache_read_input_tokens


async def test_concurrent_first_requests_all_write(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    sandbox.configure(latency_ms=100)
    answers = await asyncio.gather(*(client.messages.create(**asked([marked(LONG)])) for _ in range(3)))
    assert all(answer.usage.cache_read_input_tokens == 0 for answer in answers)
    later = await client.messages.create(**asked([marked(LONG)]))
    assert later.usage.cache_creation_input_tokens == 0


@pytest.mark.parametrize(("model", "tokens", "cached"), [(SONNET, 1023, 0), (SONNET, 1024, 1024), (HAIKU, 4095, 0)])
def test_prefix_below_the_minimum_is_silently_not_cached(model: Any, tokens: int, cached: int) -> None:
    account = PromptCache(lambda: 0.0).account(model, [CacheBlock(b"a", tokens, "5m"), CacheBlock(b"b", 10)])
    assert (account.written, account.input_tokens) == (cached, tokens + 10 - cached)


def test_another_model_or_prefix_reads_nothing() -> None:
    cache = PromptCache(lambda: 0.0)
    blocks = [CacheBlock(b"a", 5000, "5m")]
    cache.begin(cache.account(SONNET, blocks))
    assert cache.account(SONNET, blocks).read == 5000
    assert cache.account(HAIKU, blocks).read == 0
    assert cache.account(SONNET, [CacheBlock(b"x", 1), *blocks]).read == 0


@pytest.mark.parametrize(("ttl", "seconds"), [("5m", 300), ("1h", 3600)])
def test_entry_expires_by_its_ttl_and_a_read_renews_it(ttl: str, seconds: int) -> None:
    now = 0.0
    cache = PromptCache(lambda: now)
    blocks = [CacheBlock(b"a", 2000, ttl)]
    cache.begin(cache.account(SONNET, blocks))
    now = seconds - 1
    read = cache.account(SONNET, blocks)
    assert read.read == 2000
    cache.begin(read)
    now = 2 * seconds - 2
    assert cache.account(SONNET, blocks).read == 2000
    now = 2 * seconds
    assert cache.account(SONNET, blocks).read == 0


async def test_entries_appear_late_where_that_is_switched_on(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    sandbox.configure(cache_delay_ms=600_000)
    for _ in range(2):
        usage = (await client.messages.create(**asked([marked(LONG)]))).usage
        assert (usage.cache_creation_input_tokens or 0) > 1024
        assert usage.cache_read_input_tokens == 0


def test_a_late_entry_is_not_put_off_by_those_who_write_it_too() -> None:
    now = 0.0
    cache = PromptCache(lambda: now)
    blocks = [CacheBlock(b"a", 2000, "5m")]
    cache.begin(cache.account(SONNET, blocks), 2.0)
    now = 1.9
    again = cache.account(SONNET, blocks)
    assert again.read == 0
    cache.begin(again, 2.0)
    now = 2.0
    assert cache.account(SONNET, blocks).read == 2000
    now = 400.0
    late = cache.account(SONNET, blocks)
    cache.begin(late, 2.0)
    assert (late.read, cache.account(SONNET, blocks).read) == (0, 0), "an entry that has expired appears late again"


async def test_reads_miss_at_their_rate_and_the_same_ones_each_time(sandbox: Sandbox, client: AsyncAnthropic) -> None:
    async def missed() -> list[int]:
        sandbox.reset()
        users = [[{"role": "user", "content": f"Tea {number}"}] for number in range(60)]
        answers = [await client.messages.create(**asked([marked(LONG)], messages=user)) for user in users]
        return [number for number, answer in enumerate(answers) if not answer.usage.cache_read_input_tokens]

    assert len(await missed()) == 1
    sandbox.configure(cache_missed=0.5)
    first = await missed()
    assert 18 <= len(first) <= 42
    assert await missed() == first
    assert sandbox.stats()["by_fault"] == {}


def test_longest_prefix_is_read_and_only_the_rest_is_written() -> None:
    cache = PromptCache(lambda: 0.0)
    system, turn, answer = CacheBlock(b"s", 2000, "1h"), CacheBlock(b"t", 100, "5m"), CacheBlock(b"u", 50)
    first = cache.account(SONNET, [system, turn, answer])
    assert took(first) == (50, 100, 2000, 0)
    cache.begin(first)
    longer = [CacheBlock(b"s", 2000), CacheBlock(b"t", 100), answer, CacheBlock(b"v", 30, "5m"), CacheBlock(b"w", 7)]
    assert took(cache.account(SONNET, longer)) == (7, 80, 0, 2100)
