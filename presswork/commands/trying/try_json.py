"""Return trials as plain values for programs; docs/templates.md lists the keys."""

from dataclasses import asdict
from typing import Any

from db.words import SUCCEEDED
from presswork.commands.ledger.diff import difference_json
from presswork.commands.trying.try_changes import reads_other
from presswork.differences.json_differences import compare_values
from presswork.trying.trials import Trial, TriedRecord


def trial_json(trial: Trial) -> dict[str, Any]:
    """Return a trial with its records; money is a number of dollars."""
    with_content = sum(record.status == SUCCEEDED for record in trial.records)
    return {
        "run_id": trial.run_id,
        "template": trial.template,
        "template_hash": trial.template_hash,
        "endpoint": trial.endpoint,
        "system": next((record.system for record in trial.records if record.system), ""),
        "records": [record_json(record) for record in trial.records],
        "missing": trial.missing,
        "note": trial.note,
        "with_content": with_content,
        "without_content": len(trial.records) - with_content,
        "requests": trial.requests,
        **asdict(trial.tokens),
        "cost_usd": trial.cost_usd,
        "unpriced": trial.unpriced,
        "session_usd": trial.session_usd,
        "wall_s": trial.wall_s,
        "stopped": trial.stopped,
    }


def record_json(record: TriedRecord) -> dict[str, Any]:
    """Return what came of one record; the system block is the trial's."""
    return {
        "key": record.key,
        "generation_id": record.generation_id,
        "status": record.status,
        "cached": record.is_cached,
        "prompt": record.prompt,
        "output": record.output,
        "raw": record.raw,
        "faults": [asdict(fault) for fault in record.faults],
        "error": record.error,
        "requests": record.requests,
        **asdict(record.tokens),
        "cost_usd": record.cost_usd,
        "answer_tokens": asdict(record.answer_tokens),
        "answer_usd": record.answer_usd,
        "latency_ms": record.latency_ms,
    }


def changes_json(old: Trial, new: Trial) -> list[dict[str, Any]]:
    """Return what differs between the answers of two trials, for each record that both asked about."""
    befores = {record.key: record for record in old.records}
    return [
        {"key": now.key, "prompt_changed": reads_other(befores[now.key], now)}
        | difference_json(compare_values(befores[now.key].output, now.output))
        for now in new.records
        if now.key in befores
    ]
