"""Fill a Shape with an answer about a topic.

Values are what a reader expects: a word of the prompt decides an enum, the field `sku` repeats the line "Sku: T-7", and
an angry customer makes `urgent` true.
"""

import re
from typing import Any

from sandbox.draws import Draw
from sandbox.formats import formatted, is_day
from sandbox.hints import Span
from sandbox.lengths import fit_chars, sized_text
from sandbox.patterns import matching
from sandbox.prose import ProseWriter
from sandbox.record_fields import label_of, number_of
from sandbox.shapes import AnyShape, Choice, Flag, List, Numeric, Object, OneOf, Text
from sandbox.topics import Topic

_ALARMS = frozenset("negative angry urgent high critical complaint upset furious escalate refund frustrated".split())
_URGENT = re.compile(r"urgent|angry|escalat|complain|priority|refund|negative|upset|furious")
_CHOOSES = re.compile(r"\b(index|indexes|indices|number|numbers|position|pick|picks|choice|choose|chosen|best|rank)\b")
_JOYS = frozenset("positive happy praise glad delighted satisfied thanks joyful".split())
_USUAL = frozenset("neutral other normal medium general".split())
_STEM = 6
_DEFAULT_ITEMS = 3
_NOT_GIVEN = "not given"
_MOST_SECTIONS = 4
_LANGUAGES = frozenset({"language", "lang", "locale", "language code"})
# After this many repeated items, a list of its minimum length is long enough. Texts take turns, so the first that is
# repeated shows that all were used.
_TIRED = 8
_TIRED_OF_TEXTS = 1


class Filling:
    """A shape that is being filled."""

    def __init__(self, topic: Topic, draw: Draw, again: int = 0) -> None:
        """The draw decides all that the topic leaves open; `again` changes only the wording."""
        self._topic = topic
        self._draw = draw
        self._again = again
        self._writer = ProseWriter(topic, draw, again)
        self._picked = self._writer  # writes about the section that was picked, if one was

    def fill(self, shape: AnyShape) -> Any:
        """A value of the shape, as JSON."""
        match shape:
            case Object():
                return {key: self.fill(part) for key, part in shape.fields}
            case Text():
                return self._text(shape)
            case List():
                return self._list(shape)
            case Choice():
                return self._choice(shape.values)
            case Numeric():
                return self._number(shape)
            case Flag():
                return self._flag(shape)
            case OneOf():
                return self.fill(self._draw.choice(shape.options))

    def paragraph(self) -> str:
        """An answer without a shape."""
        return sized_text(self._writer, Text("", "", "prose", sentences=Span(3, 3)))

    def _text(self, shape: Text) -> str:
        if shape.format and (text := formatted(shape.format, self._topic, self._draw, shape.moment)):
            told = self._topic.labels.get(label_of(shape.name), "")[: len(text)]
            return told if shape.format == "date" and is_day(told, shape.moment) else text
        if shape.labels and shape.labels[0] in _LANGUAGES:
            text = self._topic.language
        else:
            text = self._echo(shape) or self._natural(shape)
        if shape.pattern is None or shape.pattern.search(text):
            return text
        return self._patterned(shape, text)

    def _natural(self, shape: Text) -> str:
        match shape.form:
            case "day":
                return formatted("date", self._topic, self._draw)
            case "link":
                return formatted("uri", self._topic, self._draw)
            case "slug":
                text = re.sub(r"[^a-z0-9]+", "-", self._topic.subject.lower()).strip("-")
                return fit_chars(self._writer, text, shape.chars)
            case _:
                return sized_text(self._picked if shape.form == "reason" else self._writer, shape)

    def _patterned(self, shape: Text, natural: str) -> str:
        assert shape.pattern is not None
        slug = re.sub(r"[^a-z0-9]+", "-", natural.lower()).strip("-")
        variants = (natural.lower(), slug, slug.replace("-", "_"), slug.replace("-", ""), natural.title())
        for variant in (*variants, natural.upper(), natural[:1].upper() + natural[1:], f"{natural.rstrip('.')}."):
            if _fits(variant, shape.chars) and shape.pattern.search(variant):
                return variant
        made = matching(shape.pattern, self._draw, shape.chars.low, shape.chars.high)
        return natural if made is None else made

    def _echo(self, shape: Text) -> str:
        """The value of the line with the field's name as its label, if it fits."""
        for label in shape.labels:
            value = self._topic.labels.get(label, "")
            if value and _fits(value, shape.chars):
                return value
            if label in self._topic.nulls and _fits(_NOT_GIVEN, shape.chars):
                return _NOT_GIVEN
        return ""

    def _list(self, shape: List) -> list[Any]:
        if shape.positions:
            return [self.fill(part) for part in shape.positions]
        high = shape.count.high if shape.count.high is not None else max(shape.count.low, _DEFAULT_ITEMS)
        low = max(shape.count.low, min(high, _DEFAULT_ITEMS if not shape.firm else 1))
        items = self._of_sections(shape.item, max(low, min(high, _MOST_SECTIONS)))
        wanted = len(items) or self._draw.between(low, max(low, min(high, low + 2)))
        left = _TIRED_OF_TEXTS if isinstance(shape.item, Text) and shape.item.pattern is None else _TIRED
        while len(items) < wanted and left:
            item = self.fill(shape.item)
            if item in items:
                left -= 1
            else:
                items.append(item)
        while len(items) < shape.count.low:
            items.append(self._one_more(shape.item, items))
        return items

    def _of_sections(self, shape: AnyShape, most: int) -> list[Any]:
        """One item for each section of the prompt, if it has any."""
        if not isinstance(shape, Object):
            return []
        return [Filling(section, self._draw, self._again).fill(shape) for section in self._topic.sections[:most]]

    def _one_more(self, shape: AnyShape, items: list[Any]) -> Any:
        """One more item when no distinct ones are left: a text gets a number, an enum is repeated."""
        item = self.fill(shape)
        if isinstance(item, str) and isinstance(shape, Text) and shape.pattern is None and not shape.format:
            words = item.split(" ")
            numbered = f"{' '.join(words[: -1 if len(words) == shape.words.high else None])} {len(items) + 1}"
            return numbered if _fits(numbered, shape.chars) else item
        return item

    def _choice(self, values: tuple[Any, ...]) -> Any:
        if len(values) == 1:
            return values[0]
        texts = [v for v in values if isinstance(v, str)]
        alarms = [v for v in texts if v.lower() in _ALARMS]
        glad = [v for v in texts if v.lower() in _JOYS]
        if alarms and self._topic.upset:
            return alarms[0]
        said = [v for v in texts if _occurs(v, self._topic.lowered)] or self._hinted(texts)
        if said and len(said) < len(values):
            return said[0]
        if glad and self._topic.pleased:
            return glad[0]
        calm = [v for v in values if v not in alarms and v is not None]
        usual = [v for v in calm if v in _USUAL] or [v for v in calm if v not in glad]
        return self._draw.choice(usual or calm or values)

    def _hinted(self, values: list[str]) -> list[str]:
        """The values that share a word or its stem with the prompt: "delivered" for delivery."""
        stems = ((value, [part[:_STEM] for part in value.lower().split("_") if len(part) >= _STEM]) for value in values)
        return [value for value, parts in stems if any(f" {part}" in self._topic.lowered for part in parts)]

    def _flag(self, shape: Flag) -> bool:
        if _URGENT.search(shape.about):
            return self._topic.upset
        words = [word for word in shape.name.lower().split("_") if len(word) > 4]
        return any(_occurs(word, self._topic.lowered) for word in words) or bool(self._draw.below(2))

    def _number(self, shape: Numeric) -> float | int:
        low = 0.0 if shape.low is None and (shape.high is None or shape.high >= 0) else shape.low
        low = shape.high - 10 if low is None and shape.high is not None else low or 0.0
        high = shape.high if shape.high is not None else low + (10 if shape.decimals == 0 else 100)
        told = self._told(shape, low, high)
        if told is not None:
            return told
        if shape.step:
            first, last = -(-low // shape.step), high // shape.step
            value = self._draw.between(int(first), int(max(first, last))) * shape.step
        elif shape.decimals == 0:
            value = self._draw.between(-int(-low // 1), int(high // 1))
        else:
            value = min(max(round(low + (high - low) * self._draw.fraction(), shape.decimals), low), high)
        return int(value) if shape.decimals == 0 else value

    def _told(self, shape: Numeric, low: float, high: float) -> float | int | None:
        """A number from the prompt: from the line with the field's label, or of a numbered line."""
        value = self._topic.labels.get(label_of(shape.name), "")
        number = number_of(value)
        if number is not None:
            within = (shape.low is None or low <= number) and (shape.high is None or number <= high)
            if within and (shape.decimals or number.is_integer()) and not shape.step:
                return number if shape.decimals else int(number)
        if shape.decimals == 0 and _CHOOSES.search(shape.about.replace("_", " ")):
            listed = [number for number in self._topic.listed if low <= number <= max(high, 0 if shape.firm else 9999)]
            return self._pick(self._draw.choice(listed)) if listed else None
        return None

    def _pick(self, number: int) -> int:
        at, sections = self._topic.listed.index(number), self._topic.sections
        if at < len(sections):
            self._picked = ProseWriter(sections[at], self._draw, self._again)
        return number


def _fits(text: str, chars: Span) -> bool:
    return len(text) >= chars.low and (chars.high is None or len(text) <= chars.high)


def _occurs(word: str, lowered: str) -> bool:
    word = word.lower().replace("_", " ")
    at = lowered.find(word)
    while at >= 0:
        end = at + len(word)
        if not lowered[at - 1 : at].isalnum() and not lowered[end : end + 1].isalnum():
            return True
        at = lowered.find(word, at + 1)
    return False
