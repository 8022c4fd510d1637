"""Read which output schema a version of a template was last asked with."""

import orjson
from sqlalchemy import Engine, func, select

from db.session import rows_of
from db.tables import Generation, OutcomeRollup, StoredPrompt


def schema_asked_with(engine: Engine, step: str, version: str) -> str | None:
    """Return the hash of the schema in the last prompt of a template's version; None if no ended run asked with it."""
    o, g = OutcomeRollup, Generation
    # Through the rollups: an index on the template of generations would be large, and only this would use it.
    ((run_id,),) = rows_of(engine, select(func.max(o.run_id)).where(o.step == step, o.template_hash == version))
    of_version = (g.run_id == run_id, g.step == step, g.template_hash == version)
    prompts = select(StoredPrompt.request).join(g, g.prompt_hash == StoredPrompt.hash).where(*of_version)
    for (request,) in rows_of(engine, prompts.limit(1)):
        schema = orjson.loads(request).get("output_config", {}).get("format", {}).get("schema", {})
        return schema.get("$json") if isinstance(schema, dict) else None
    return None
