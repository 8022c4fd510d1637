"""Filling a Shape with an answer about a topic: the same request is always answered the same.

Values are chosen as a reader would expect them: a word of the prompt decides an enum, a labelled line ("Sku: T-7") is
echoed by the field of that name, and somebody who sounds angry makes `urgent` true.
"""

import re
from typing import Any

from sandbox.draws import Draw
from sandbox.formats import formatted
from sandbox.hints import Span
from sandbox.lengths import fit_chars, sized_text
from sandbox.patterns import matching
from sandbox.prose import ProseWriter, capital, headline
from sandbox.shapes import AnyShape, Choice, Flag, List, Numeric, Object, OneOf, Text
from sandbox.topics import Topic

_ALARMS = frozenset("negative angry urgent high critical complaint upset furious escalate refund frustrated".split())
_URGENT = re.compile(r"urgent|angry|escalat|complain|priority|refund|negative|upset|furious")
_CHOOSES = re.compile(r"\b(index|indexes|indices|number|numbers|position|pick|picks|choice|choose|chosen|best|rank)\b")
_DEFAULT_ITEMS = 3
# After so many items that were there already, a list is long enough if its least length is reached. Texts take
# turns, so the first that comes again says that all were there.
_TIRED = 8
_TIRED_OF_TEXTS = 1


class Filling:
    """A shape that is being filled."""

    def __init__(self, topic: Topic, draw: Draw) -> None:
        """The draw decides all that the topic leaves open."""
        self._topic = topic
        self._draw = draw
        self._writer = ProseWriter(topic, draw)

    def fill(self, shape: AnyShape) -> Any:
        """A value of the shape, as JSON has it."""
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
        """An answer where no shape is asked for."""
        return self._writer.sentences(3, "prose")

    def _text(self, shape: Text) -> str:
        if shape.format and (text := formatted(shape.format, self._topic, self._draw, shape.moment)):
            return text
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
                return sized_text(self._writer, shape)

    def _patterned(self, shape: Text, natural: str) -> str:
        assert shape.pattern is not None
        slug = re.sub(r"[^a-z0-9]+", "-", natural.lower()).strip("-")
        variants = (natural.lower(), slug, slug.replace("-", "_"), slug.replace("-", ""), headline(natural))
        for variant in (*variants, natural.upper(), capital(natural), f"{natural.rstrip('.')}."):
            if _fits(variant, shape.chars) and shape.pattern.search(variant):
                return variant
        made = matching(shape.pattern, self._draw, shape.chars.low, shape.chars.high)
        return natural if made is None else made

    def _echo(self, shape: Text) -> str:
        """The value of the labelled line that has the field's name, if it fits."""
        for label in shape.labels:
            value = self._topic.labels.get(label, "")
            if value and _fits(value, shape.chars):
                return value
        return ""

    def _list(self, shape: List) -> list[Any]:
        if shape.positions:
            return [self.fill(part) for part in shape.positions]
        high = shape.count.high if shape.count.high is not None else max(shape.count.low, _DEFAULT_ITEMS)
        low = max(shape.count.low, min(high, _DEFAULT_ITEMS if not shape.firm else 1))
        items: list[Any] = []
        wanted = self._draw.between(low, max(low, min(high, low + 2)))
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

    def _one_more(self, shape: AnyShape, items: list[Any]) -> Any:
        """An item for a list that has run out of distinct ones: a text gets a number, an enum repeats itself."""
        item = self.fill(shape)
        if isinstance(item, str) and isinstance(shape, Text) and shape.pattern is None and not shape.format:
            numbered = f"{item} {len(items) + 1}"
            return numbered if _fits(numbered, shape.chars) else item
        return item

    def _choice(self, values: tuple[Any, ...]) -> Any:
        if len(values) == 1:
            return values[0]
        said = [v for v in values if isinstance(v, str) and _occurs(v, self._topic.lowered)]
        alarms = [v for v in values if isinstance(v, str) and v.lower() in _ALARMS]
        if alarms and self._topic.upset:
            return alarms[0]
        if said and len(said) < len(values):
            return said[0]
        calm = [v for v in values if v not in alarms and v is not None]
        return self._draw.choice(calm or values)

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
        """A number that stands in the prompt: in a line with the field's label, or before one of its numbered lines."""
        value = self._topic.labels.get(shape.name.replace("_", " ").lower(), "")
        if match := re.fullmatch(r"\D{0,3}(-?\d+(?:\.\d+)?)\D{0,8}", value):
            number = float(match[1])
            if low <= number <= high and (shape.decimals or number.is_integer()) and not shape.step:
                return number if shape.decimals else int(number)
        if shape.decimals == 0 and _CHOOSES.search(shape.about.replace("_", " ")):
            listed = [number for number in self._topic.listed if low <= number <= max(high, 0 if shape.firm else 9999)]
            return self._draw.choice(listed) if listed else None
        return None


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
