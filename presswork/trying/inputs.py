"""Find the inputs that a step of a flow had in an earlier run, so that it can be tried on them.

A step of that run gets exactly the materials that it had there, by the parents of its outcomes. An unchanged template
then makes the same prompts, whose answers are in the ledger. A template that was no step of that run gets the contents
of the run's latest step that it reads.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from db.readers.past_runs.step_inputs import OutcomeInputs, read_inputs
from db.readers.past_runs.step_outcomes import PastRun, StepOutcome, find_past_run, read_outcomes, without_variant
from db.readers.stored_generations import generations_by_id
from db.session import readable_url
from db.words import TRY
from presswork.engine.materials.handles import Read, Together
from presswork.errors import ConfigurationError
from presswork.escaping import quoted
from presswork.prompts.templates import Template
from presswork.trying.past_materials import PastGenerations, PastInputs, PastRecords

GIVEN_INPUTS = frozenset({"record", "params"})
"""What a template reads that is no step's output."""
OPTIONS = "options"
_LISTED = 5
_OF_TRIAL = " It is a trial, which keeps no outcome that it found unchanged. Name a run."
_UNCERTAIN = (
    "The run {run} found records of the step {step} unchanged, and a later run confirmed or changed them. Their "
    "content is that of the time, but the ledger does not say any more which of them this run selected."
)


@dataclass(frozen=True, slots=True)
class _Asking:
    """What the inputs are found for, and in which run."""

    ledger: Engine
    run: PastRun
    template: Template
    params: Mapping[str, Any]
    read: Read


def past_run(ledger: Engine, text: str) -> PastRun:
    """Return the run with this id, or whose id begins or ends so. Raises ConfigurationError if none or several do."""
    found = find_past_run(ledger, text)
    if found is None:
        raise ConfigurationError(
            f"There is no run, or more than one, whose id starts or ends with {quoted(text)} in "
            f"{readable_url(ledger.url)}. Give at least 6 characters. `presswork history` lists the runs."
        )
    return found


def find_inputs(
    ledger: Engine,
    run: PastRun,
    template: Template,
    *,
    keys: Sequence[str] = (),
    limit: int | None = None,
    sets: Mapping[str, Any] | None = None,
    read: Read = asyncio.to_thread,
) -> PastInputs:
    """Return a handle of the materials that a template had as a step of a run, or would have as a new step of it.

    `keys` are those of its outcomes; a key without a variant means all variants. Without keys, the first `limit`
    outcomes are meant. `sets` override values of the params that are known from the run. Raises ConfigurationError if
    the run has no such step, record or content, and ParameterError for the params.
    """
    params = template.parse_params({**_known_params(run, template), **(sets or {})})
    asking = _Asking(ledger, run, template, params, read)
    own = read_outcomes(ledger, run, template.name, keys=keys, limit=None if keys else limit)
    if not own and keys and _are_of_fan_in(template, keys):
        own, keys = read_outcomes(ledger, run, template.name, limit=limit), ()
    if not own and run.steps.get(template.name, "") is not None:
        return _of_earlier_step(asking, keys, limit)
    _require_keys(asking, keys, [each.record_key for each in own], template.name)
    return _of_own_outcomes(asking, own)


def _are_of_fan_in(template: Template, keys: Sequence[str]) -> bool:
    """Return whether keys are that of a template's fan-in: it is in the template, so it may have been edited since."""
    return template.select_sql is None and all(template.key in {key, without_variant(key)} for key in keys)


def _known_params(run: PastRun, template: Template) -> dict[str, Any]:
    """Return the values of a template's params that are among a run's parameters; the others keep their defaults."""
    given: dict[str, Any] = {}
    for name, value in run.parameters.items():
        # The generic flow has `params`, other flows have a selection under a name of their choice.
        if name != OPTIONS:
            given |= value if isinstance(value, Mapping) else {name: value}
    return {name: given[name] for name in template.front.params if given.get(name) is not None}


def _require_steps(asking: _Asking, reads: set[str]) -> None:
    unknown = sorted(reads - set(asking.run.steps))
    if unknown:
        raise ConfigurationError(
            f"{asking.template.file} reads {unknown[0]!r}, which is no step of the run {asking.run.id} "
            f"({asking.run.flow}). {_steps_of(asking.run)}"
        )


def _steps_read(template: Template) -> set[str]:
    """Return the names of the steps that a template needs: not those whose absence it checks."""
    variables = template.variables("user")
    optional = {variable.name for variable in variables if variable.optional}
    return {variable.name for variable in variables} - optional - GIVEN_INPUTS


def _steps_of(run: PastRun) -> str:
    return f"Its steps: {', '.join(run.steps) or 'none'}."


def _require_keys(asking: _Asking, keys: Sequence[str], found: Sequence[str], step: str) -> None:
    known = {*found, *filter(None, map(without_variant, found))}
    missing = [key for key in keys if key not in known]
    if missing:
        named = asking.template.name if asking.template.name in asking.run.steps else step
        there = [quoted(each.record_key) for each in read_outcomes(asking.ledger, asking.run, named, limit=_LISTED)]
        raise ConfigurationError(
            f"The step {named!r} of the run {asking.run.id} has no record with the key {quoted(missing[0])}. "
            f"It has, for example: {', '.join(there or map(quoted, found)) or 'none'}."
        )


def _of_own_outcomes(asking: _Asking, own: Sequence[StepOutcome]) -> PastInputs:
    """Return what the outcomes of a step of the run were made from."""
    with_siblings = [*own, *_siblings(asking, own)]
    inputs = read_inputs(asking.ledger, sorted({each.generation_id for each in with_siblings}))
    numbers = _variant_numbers(with_siblings, inputs)
    chosen: dict[str, StepOutcome] = {}
    wanted = defaultdict[str, set[int]](set)
    for each in own:
        key = each.record_key
        if key in numbers:
            key = without_variant(key) or ""
            wanted[key].add(numbers[each.record_key])
        chosen[key] = each
    source = _source_of(asking, {key: inputs[each.generation_id] for key, each in chosen.items()}, chosen)
    keys = [each.record_key for each in own]
    if isinstance(source, Together):
        # The material of a fan-in has no key, and its outcomes have the template's.
        wanted = defaultdict(set, {"": set[int]().union(*wanted.values())} if wanted else {})
        keys = [asking.template.key + (f"/{numbers[key]}" if key in numbers else "") for key in keys]
    variants = 1 + max(numbers.values(), default=0)
    note = _note(asking.run, asking.template.name, own)
    by_key = {key: frozenset(each) for key, each in wanted.items()}
    return PastInputs(asking.run, source, tuple(keys), asking.params, variants, note, by_key)


def _siblings(asking: _Asking, own: Sequence[StepOutcome]) -> list[StepOutcome]:
    """Return all outcomes that may be variants of the same materials."""
    bases = {base for each in own if (base := without_variant(each.record_key)) is not None}
    return read_outcomes(asking.ledger, asking.run, asking.template.name, keys=sorted(bases)) if bases else []


def _variant_numbers(outcomes: Sequence[StepOutcome], inputs: Mapping[str, OutcomeInputs]) -> dict[str, int]:
    """Return the variant of each outcome, by its key; empty if the step has no variants.

    A record's own key may end like that of a variant. The prompts of variants after the first tell them apart.
    """
    asked = {each.record_key: inputs[each.generation_id].variant for each in outcomes}
    bases = {without_variant(key) for key, variant in asked.items() if variant and key.endswith(f"/{variant}")}
    return {key: int(key.rpartition("/")[2]) for key in asked if without_variant(key) in bases - {None}}


def _source_of(
    asking: _Asking, inputs: Mapping[str, OutcomeInputs], chosen: Mapping[str, StepOutcome]
) -> PastRecords | PastGenerations | Together:
    parents = [parent for each in inputs.values() for parent in each.parents]
    if not parents:
        ids = {key: each.generation_id for key, each in chosen.items()}
        return PastRecords(asking.ledger, ids, asking.params, asking.read)
    first = generations_by_id(asking.ledger, parents[:1])[0]
    source = _generations(asking, first.step, parents)
    has_one_each = all(len(each.parents) == 1 for each in inputs.values())
    return source if has_one_each and first.record_key in chosen else Together(source)


def _generations(asking: _Asking, step: str, ids: Sequence[str]) -> PastGenerations:
    # Materials do not need the class of the outputs: these are read as they are stored.
    output_class = asking.template.output_class
    run_id = asking.run.id
    return PastGenerations(
        asking.ledger, run_id, step, output_class, read=asking.read, params=asking.params, ids=tuple(ids)
    )


def _of_earlier_step(asking: _Asking, keys: Sequence[str], limit: int | None) -> PastInputs:
    """Return the contents of the latest step that a template reads, as a new step of the run would get them."""
    run, template = asking.run, asking.template
    step = _latest_step(asking)
    together = _reads_a_list(template, step)
    if together:
        _require_keys(asking, keys, [template.key], template.name)
        keys, limit = (), None
    found = read_outcomes(asking.ledger, run, step, keys=keys, limit=None if keys else limit, with_content=True)
    _require_keys(asking, keys, [each.record_key for each in found], step)
    if not found:
        more = _OF_TRIAL if run.trigger == TRY else ""
        raise ConfigurationError(f"The step {step!r} of the run {run.id} has no content to read.{more}")
    source = _generations(asking, step, [each.generation_id for each in found])
    own_keys = (template.key,) if together else tuple(each.record_key for each in found)
    note = _note(run, step, found)
    return PastInputs(run, Together(source) if together else source, own_keys, asking.params, note=note)


def _latest_step(asking: _Asking) -> str:
    """Return the latest step of the run that a template reads; raises ConfigurationError if that is not clear."""
    run, template = asking.run, asking.template
    reads = _steps_read(template)
    if template.name in run.steps and (made_from := run.steps[template.name]) is not None:
        return made_from
    if template.select_sql is not None:
        raise ConfigurationError(
            f"The template {template.name!r} selects its own records and was no step of the run {run.id} ({run.flow}). "
            f"Leave out the run. {_steps_of(run)}"
        )
    _require_steps(asking, reads)
    # A template that reads only records can follow any step that was made from records, if there is only one.
    follows = [step for step, made_from in run.steps.items() if (step in reads if reads else made_from is None)]
    is_clear = reads <= {follows[-1], *_steps_above(run, follows[-1])} if reads else len(follows) == 1
    if is_clear:
        return follows[-1]
    raise ConfigurationError(
        f"It is not clear which step of the run {run.id} ({run.flow}) {template.file} follows, because it reads "
        f"{' and '.join(sorted(reads)) or 'records only'}. Read the outputs of one step, or also of steps that lead to "
        f"it. {_steps_of(run)}"
    )


def _steps_above(run: PastRun, step: str) -> set[str]:
    above: set[str] = set()
    before = run.steps.get(step)
    while before is not None and before not in above:
        above.add(before)
        before = run.steps.get(before)
    return above


def _reads_a_list(template: Template, step: str) -> bool:
    """Return whether a template reads a step's outputs as a list: it has a fan-in's key, or reads no field of one."""
    fields = [variable.column for variable in template.variables("user") if variable.name == step]
    return bool(template.front.key_columns) or (bool(fields) and not any(fields))


def _note(run: PastRun, step: str, outcomes: Sequence[StepOutcome]) -> str | None:
    return None if all(each.certain for each in outcomes) else _UNCERTAIN.format(run=run.id, step=step)
