"""Write plain English about a topic in the form of a field, piece by piece.

A piece is a whole sentence or a whole line. The prompt's own sentences come first, since they read most naturally.
The facts of a record are set in frames. `lengths` picks the pieces that fit, so it cuts almost none.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import TypeVar

from sandbox import frames
from sandbox.draws import Draw
from sandbox.lazy import Lazy
from sandbox.letters import ENGLISH, LETTERS, Letter
from sandbox.phrases import (
    FINAL_ENDS,
    SENTENCE_ENDS,
    as_sentence,
    capitalized,
    claim_of,
    head_of,
    plain_title,
    undecorated,
)
from sandbox.record_fields import Fact, trimmed
from sandbox.topics import Topic

LINES = frozenset({"title", "point", "action", "question", "greeting", "term"})
"""The forms of a single line; all others are sentences."""

T = TypeVar("T")
_LONG_NAME = 4  # spaces: a name with more is set in quotation marks
_LONG_QUOTE = 160

Alternatives = Sequence[str]
"""One piece in several wordings. The first that fits is used."""


ALL_SAID: Alternatives = ()
"""Marks the end of the content. Later pieces are only for a field that must be longer."""


class ProseWriter:
    """Writes about one topic; frames, facts and sentences take turns, so that two texts of an answer differ."""

    def __init__(self, topic: Topic, draw: Draw, again: int = 0) -> None:
        """The draw decides which frames come first; another `again` starts with the next frame, fact and sentence."""
        self.topic = topic
        self._again = again
        self._turn = draw.below(1 << 16) + again
        self._facts_told = again
        self._sentences_told = again
        self._used: set[str] = set()
        named = topic.subject
        quoted = named.count(" ") > _LONG_NAME or named.endswith(SENTENCE_ENDS)
        self._subject = f"\u201c{named}\u201d" if quoted else named

    def lines(self, form: str, most: int) -> Iterator[str]:
        """Wordings of a single line, the best first. `most` is a wish in characters; some are longer."""
        self._turn += 1
        match form:
            case "title":
                return self._titles(most)
            case "point":
                return self._points()
            case "action":
                return self._framed(frames.ACTIONS)
            case "question":
                return self._framed(frames.QUESTIONS)
            case "greeting":
                return iter((self.letter()[0],))
            case _:
                return self._unused(self.topic.terms)

    def use(self, line: str) -> None:
        """Note that a line was used, so that the next point or term is another."""
        self._used.add(line)

    def pieces(self, form: str) -> Iterator[Alternatives]:
        """Yield sentences of a form, without end."""
        self._turn += 1
        if form == "reason":
            return chain([self._because()], self._always())
        if form == "summary" and self.topic.sender and not self._is_record:
            return chain([self._report()], self._sentences(opening=False))
        if form == "summary" and self._is_record:
            return chain([self._digest()], self._always())
        return self._sentences(opening=True)

    def letter(self) -> tuple[str, Iterator[Alternatives], str]:
        """A letter's greeting, its sentences and its closing, in the language of the topic."""
        letter = LETTERS.get(self.topic.language, ENGLISH)
        person = self.topic.person
        greeting = letter.greeting_to.format(p=person) if person else letter.greeting
        return greeting, self._letter(letter), letter.closing

    def sentence(self) -> str:
        """A plain sentence that names nothing."""
        self._turn += 1
        return frames.ALWAYS[self._turn % len(frames.ALWAYS)]

    @Lazy
    def _is_record(self) -> bool:
        topic = self.topic
        return len(topic.told) > 1 or bool(topic.sections) or (bool(topic.facts) and not topic.sentences)

    def _sentences(self, *, opening: bool) -> Iterator[Alternatives]:
        topic = self.topic
        if self._is_record:
            yield from self._told_facts(opening=opening)
        told = topic.sentences
        for _ in told:
            yield (as_sentence(told[self._sentences_told % len(told)]),)
            self._sentences_told += 1
        if not self._is_record:
            yield from self._told_facts(opening=False)
        yield from self._always()

    def _always(self) -> Iterator[Alternatives]:
        while True:
            yield ALL_SAID
            for frame in _turned(frames.ALWAYS, self._turn):
                yield (frame,)
            yield tuple(self._framed(frames.ABOUT))
            self._turn += 5

    def _told_facts(self, *, opening: bool) -> Iterator[Alternatives]:
        facts = [undecorated(fact) for fact in self.topic.facts] if self.topic.sections else self.topic.facts
        left = list(_turned(facts, self._facts_told))
        more = frames.ALSO if self.topic.sections else frames.MORE
        stock: Sequence[str] = more
        if opening:
            stock = frames.CONTENTS if self.topic.sections else frames.OPENINGS
        while left:
            self._turn += 1
            frame = stock[self._turn % len(stock)]
            while "{g}" in frame and len(left) < 2:
                self._turn += 1
                frame = stock[self._turn % len(stock)]
            taken, left = left[: 1 + frame.count("{g}")], left[1 + frame.count("{g}") :]
            self._facts_told += len(taken)
            yield self._told(taken, claim_of(taken[0].phrase) if stock is frames.MORE else None, frame)
            stock = more

    def _told(self, taken: Sequence[Fact], claim: str | None, frame: str) -> Alternatives:
        phrases = [fact.phrase for fact in taken]
        if claim is None:
            return (self._fill(frame, *phrases), self._fill("{F}.", phrases[0]))
        return (claim,) if len(phrases) < 2 else (claim, self._fill(frame, *phrases))

    def _digest(self) -> Alternatives:
        """A record in one sentence, from long to short."""
        facts = [fact.phrase for fact in islice(_turned(self.topic.facts, self._again), 4)]
        named = [f"{capitalized(self._subject)}: {'; '.join(facts[:count])}." for count in range(len(facts), 0, -1)]
        return (*named, *(f"{capitalized('; '.join(facts[:count]))}." for count in (3, 2, 1)))

    def _report(self) -> Alternatives:
        """A message in one English sentence."""
        topic = self.topic
        if not topic.written and not topic.matter:
            return (f"{topic.sender} sent a message without text.",)
        about = f"{topic.sender} writes about {self._quoted_subject()}" if topic.matter else f"{topic.sender} writes"
        if topic.language != "en":
            return (f"{about}.",)
        asked = [f"{about} and asks: \u201c{as_sentence(question)}\u201d" for question in topic.questions]
        said = [f"{about}: \u201c{as_sentence(sentence)}\u201d" for sentence in topic.written]
        return (*_turned([*asked, *said], self._again), f"{about}.")

    def _because(self) -> Alternatives:
        quotes = [f"\u201c{as_sentence(sentence).rstrip('.')}\u201d" for sentence in self.topic.written]
        told = [fact.phrase for fact in self.topic.facts] if self._is_record else quotes
        frame = frames.REASONS[self._turn % len(frames.REASONS)]
        told = list(_turned(told, self._turn))
        return (*(self._fill(frame, phrase) for phrase in told), *self._framed(frames.BARE_REASONS))

    def _letter(self, letter: Letter) -> Iterator[Alternatives]:
        topic, (left, right) = self.topic, letter.quotes
        thanks = letter is ENGLISH and not topic.written and len(topic.facts) > 1
        if thanks:
            yield ("Thank you for being with us.",)
        elif topic.matter:
            yield letter.thanks_for.format(s=f"{left}{topic.matter}{right}"), letter.thanks
        else:
            yield (letter.thanks,)
        quotable = [text for text in topic.questions if len(text) < _LONG_QUOTE]
        if quotable:
            yield (letter.asked.format(q=f"{left}{quotable[0]}{right}"),)
        if thanks:
            yield from self._thanks()
            yield from self._always()
        while True:
            for sentence in _turned(letter.sentences, self._turn):
                yield (sentence,)
            yield ALL_SAID

    def _thanks(self) -> Iterator[Alternatives]:
        counted = [fact for fact in self.topic.measured if fact.phrase[0].isdigit() or " and " in fact.phrase]
        facts = [fact.phrase for fact in counted or self.topic.told]
        for frame in _turned(frames.THANKS, self._turn):
            if "{f}" not in frame:
                yield (frame,)
            elif facts:
                several, facts = facts[:3], facts[3:]
                yield tuple(self._fill(frame, "; ".join(several[:count])) for count in range(len(several), 0, -1))

    def _titles(self, most: int) -> Iterator[str]:
        topic, named = self.topic, self._named()
        facts = (topic.told or topic.items) if self._is_record and not topic.sections and not topic.matter else []
        if facts:
            heads = (head_of(fact.phrase, most - len(named) - 2) for fact in _turned(facts, self._turn))
            for head in filter(None, heads):
                yield f"{capitalized(named)}: {head}"
        else:
            for frame in _turned(self._title_frames(named), self._turn):
                yield frame.format(S=capitalized(named), s=named, p=topic.person)
        yield capitalized(named)
        yield from map(capitalized, self.topic.terms)

    def _named(self) -> str:
        """The subject of a title: of several sections, that of another one each time."""
        topic = self.topic
        if not topic.sections:
            return topic.subject
        names = dict.fromkeys([topic.subject, *(section.subject for section in topic.sections)])
        return plain_title(tuple(names)[self._again % len(names)])

    def _title_frames(self, named: str) -> Sequence[str]:
        topic = self.topic
        if topic.person and not topic.heading:
            return frames.PERSONAL
        if named.endswith(FINAL_ENDS) or topic.language != "en":
            return ()
        if topic.person and topic.matter:
            return frames.MESSAGES
        return frames.SEVERAL if topic.sections else frames.HEADLINES

    def _points(self) -> Iterator[str]:
        topic = self.topic
        facts = [fact.line for fact in (*topic.told, *topic.items, *topic.measured)]
        told = [trimmed(as_sentence(sentence)) for sentence in topic.sentences]
        told = [*facts, *told] if self._is_record else [*told, *facts]
        yield from self._unused(list(_turned(told, self._again)))
        yield from self._unused([f"{one.line}; {two.phrase}" for one, two in pairwise(topic.facts)])
        yield from self._unused(list(self._framed(frames.POINTS)))
        yield from self._unused([trimmed(frame) for frame in frames.ALWAYS])

    def _unused(self, texts: Sequence[str]) -> Iterator[str]:
        yield from (text for text in texts if text not in self._used)
        if self._used.issuperset(texts):
            self._used.difference_update(texts)
            yield from texts

    def _framed(self, stock: Sequence[str]) -> Iterator[str]:
        return (self._fill(frame) for frame in _turned(stock, self._turn))

    def _fill(self, frame: str, f: str = "", g: str = "") -> str:
        subject = self._subject
        return frame.format(s=subject, S=capitalized(subject), f=f, F=capitalized(f), g=g)

    def _quoted_subject(self) -> str:
        return self._subject if self._subject[0] == "\u201c" else f"\u201c{self._subject}\u201d"


def _turned(items: Sequence[T], by: int) -> Iterator[T]:
    start = by % len(items) if items else 0
    return chain(items[start:], items[:start])
