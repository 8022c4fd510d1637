"""Make a Shape from a checked JSON schema: read its hints, and choose the form of each text."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sandbox.hints import (
    ANY_COUNT,
    Span,
    count_hints,
    keyword_hints,
    moment_hints,
    number_hint,
    spoken_counts,
    spoken_range,
)
from sandbox.record_fields import label_of
from sandbox.shapes import AnyShape, Choice, Flag, List, Numeric, Object, OneOf, Text

# The last word of the field's name that has a form decides. Otherwise the description may say that it is a letter.
_FORMS = (
    ("action", "cta call_to_action button action"),
    ("question", "question questions faq"),
    ("reason", "reason reasons rationale why explanation justification because evidence"),
    ("title", "title headline subject heading header name slogan tagline subtitle"),
    ("slug", "slug handle"),
    ("term", "tag tags keyword keywords category topic topics theme tone label labels mood genre kind type"),
    (
        "point",
        "bullet bullets highlight highlights point points feature features benefit benefits takeaway takeaways",
    ),
    ("summary", "summary abstract teaser excerpt tldr meta synopsis gist"),
    ("letter", "reply email letter response"),
    ("greeting", "greeting salutation"),
    ("day", "date day"),
    ("link", "url link uri website href"),
)
_FORM_OF = {word: form for form, words in _FORMS for word in words.split()}
# The number of words in a form if nothing sets its length.
_USUAL = {"prose": 24, "summary": 26, "letter": 48, "reason": 12}
_WRITTEN = re.compile("title|headline|subject|body|text|copy|description|content")
_PROSE = re.compile("paragraph|sentence|section|step|note|letter|message")
_PARAGRAPH = 30
_POSITION = re.compile(r"Position \d+\b")
_LETTER = re.compile(
    r"\b(reply|e-?mail|letter|answer)('s)? (to|that|body|text|for|itself|in)\b"
    r"|\bbody of the (e-?mail|reply|letter)\b|\bfrom greeting\b"
)


def shape_of(schema: Mapping[str, Any], definitions: Mapping[str, Any], name: str = "", about: str = "") -> AnyShape:
    """The shape of a checked schema. `name` and `about` (a description) come from its parent."""
    about = schema.get("description") or about
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return shape_of(target, definitions, name, about if "description" not in target else "")
    if "const" in schema:
        return Choice(name, (schema["const"],))
    if "enum" in schema:
        return Choice(name, tuple(schema["enum"]))
    if "anyOf" in schema:
        return _one_of(schema, definitions, name, about)
    if "allOf" in schema:
        return shape_of(_merged(schema, definitions), definitions, name, about)
    return _plain(schema, definitions, name, about)


def _plain(schema: Mapping[str, Any], definitions: Mapping[str, Any], name: str, about: str) -> AnyShape:
    match schema.get("type", "string"):
        case "object":
            fields = tuple((key, shape_of(it, definitions, key)) for key, it in schema.get("properties", {}).items())
            return Object(name, fields, frozenset(schema.get("required", ())))
        case "array":
            return _list(schema, definitions, name, about)
        case "string":
            return _text(name, about, schema.get("format", ""))
        case "integer" | "number" as kind:
            return _number(name, about, whole=kind == "integer")
        case "boolean":
            return Flag(name, f"{name} {about}".lower())
        case _:
            return Choice(name, (None,))


def _one_of(schema: Mapping[str, Any], definitions: Mapping[str, Any], name: str, about: str) -> AnyShape:
    options = tuple(shape_of(option, definitions, name, about) for option in schema["anyOf"])
    real = tuple(option for option in options if option != Choice(name, (None,)))
    if not real:
        return Choice(name, (None,))
    # Alternatives of objects are a tagged union, and any of them is valid. Of plain types the first is the natural one
    # (pydantic writes Decimal as number or string).
    return OneOf(real) if all(isinstance(option, Object) for option in real) and len(real) > 1 else real[0]


def _merged(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for option in schema["allOf"]:
        part = definitions[option["$ref"].rsplit("/", 1)[-1]] if "$ref" in option else option
        part = _merged(part, definitions) if "allOf" in part else part
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", ()), *part.get("required", ())]
        merged = {**merged, **part}
        if merged.get("type") == "object":
            merged |= {"properties": properties, "required": required}
    return merged


def _list(schema: Mapping[str, Any], definitions: Mapping[str, Any], name: str, about: str) -> List:
    hints, spoken = keyword_hints(about), spoken_counts(about)
    count = count_hints(hints, "minItems", "maxItems")
    firm = bool(count.low or count.high is not None)
    if not firm:
        count = spoken.get("item", Span(0, None))
    low = max(count.low, int(schema.get("minItems", 0)))
    # A word count in the list's description applies to each item.
    words = spoken.get("word")
    item_about = f"{words.low} to {words.high} words" if words and words.high is not None else ""
    item = shape_of(schema.get("items", {"type": "string"}), definitions, name, item_about)
    if isinstance(item, Text) and item.form == "prose" and item.target < _PARAGRAPH and not _PROSE.search(name.lower()):
        item = replace(item, form="point", labels=())
    return List(name, item, Span(low, count.high), firm, _positions(schema.get("items", {}), definitions, name))


def _positions(items: Mapping[str, Any], definitions: Mapping[str, Any], name: str) -> tuple[AnyShape, ...]:
    """The shapes of a tuple's items, if each names its position. Further items are left out."""
    options = items.get("anyOf", ())
    if not options or not all(_POSITION.match(option.get("description", "")) for option in options):
        return ()
    fixed = [option for option in options if " and all that follow" not in option["description"]]
    return tuple(shape_of(option, definitions, name) for option in fixed)


def _text(name: str, about: str, format_: str) -> Text:
    hints, spoken = keyword_hints(about), spoken_counts(about)
    chars = count_hints(hints, "minLength", "maxLength")
    firm = bool(chars.low or chars.high is not None)
    if not firm:
        chars = spoken.get("character", Span())
    lowered = f"{name} {about}".lower()
    form, words = _form(name, lowered), spoken.get("word", ANY_COUNT)
    if form == "point" and "sentence" in spoken:
        form = "prose"
    return Text(
        name=name,
        about=lowered,
        form=form,
        chars=chars,
        words=words,
        sentences=spoken.get("sentence", Span()),
        pattern=_pattern(hints.get("pattern")),
        format=format_ or hints.get("format", ""),
        firm=firm,
        target=_target(form, words, chars),
        labels=_labels(name, form, words),
        moment=moment_hints(hints),
    )


def _target(form: str, words: Span, chars: Span) -> int:
    """About how many words to write; English has some 6 characters a word, spaces included."""
    usual = _USUAL.get(form, 6)
    if words.high is not None:
        return (words.low + words.high) // 2 if words.low else min(usual, words.high)
    if words.low:
        return words.low + 5
    if chars.high is not None:
        usual = min(usual, max(1, chars.high // 7))
    return max(usual, (chars.low + 5) // 5)


def _labels(name: str, form: str, words: Span) -> tuple[str, ...]:
    """The labels whose value the field repeats, such as a name or a sku. Headlines and descriptions are written."""
    if not name or form not in ("prose", "term", "title") or words is not ANY_COUNT or _WRITTEN.search(name.lower()):
        return ()
    return (label_of(name),)


def _pattern(source: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(source) if source else None
    except re.error:  # written for another engine; the answer then ignores it, as a model might
        return None


def _form(name: str, about: str) -> str:
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().split("_")
    if len(words) > 1 and words[-1] in ("body", "text"):
        words = words[:-1]
    for word in reversed(words):
        if word in _FORM_OF:
            return _FORM_OF[word]
    return "letter" if _LETTER.search(about) else "prose"


def _number(name: str, about: str, *, whole: bool) -> Numeric:
    hints = keyword_hints(about)
    step = number_hint(hints, "multipleOf")
    places = number_hint(hints, "decimal_places")
    decimals = 0 if whole else 2 if places is None else int(places)
    grain = step or (1.0 if whole else 0.01)
    low, high = number_hint(hints, "minimum"), number_hint(hints, "maximum")
    above, below = number_hint(hints, "exclusiveMinimum"), number_hint(hints, "exclusiveMaximum")
    if above is not None:
        low = above + grain
    if below is not None:
        high = below - grain
    digits = number_hint(hints, "max_digits")
    if digits is not None and high is None:
        high = 10 ** (digits - decimals) - grain
    firm = low is not None or high is not None
    lowered = f"{name} {about}".lower()
    if not firm and (said := spoken_range(lowered)):
        low, high = said
    if low is None and re.search(r"1-based|starting (at|from|with) (1|one)", lowered):
        low = 1
    if low is None and high is None and not whole and re.search(r"score|confiden|probab|share|ratio|fraction", lowered):
        low, high = 0, 1
    return Numeric(name, lowered, low, high, decimals, step, firm)
