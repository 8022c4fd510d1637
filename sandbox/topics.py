"""Find what a prompt is about, in its own words: its subject, the facts of its record, the sentences of its text."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from sandbox.languages import language_of
from sandbox.lazy import Lazy
from sandbox.plain_text import plain
from sandbox.prompt_lines import PromptLine, is_prose, name_of, ordered_subject, read_line, repeatable
from sandbox.record_fields import Fact, Field, field_of, trimmed
from sandbox.stop_words import STOP_WORDS

# A prompt may have a million tokens. Its ends are enough to find what it is about.
_READ = 4_000
_FEW = 3
_SHORT_LINE = 40  # characters: a prompt of one such line names its subject itself
_MOST_SENTENCES = 12
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_PLAIN_TERM = re.compile(r"[^\W\d_][^\d,.;:()]*")
_HALF = re.compile("[\ud800-\udfff]+")
_LANGUAGE = re.compile(r"[a-z]{2}([-_][A-Za-z]{2})?")
_UPSET = re.compile(
    r"!!|\b(angry|urgent(ly)?|immediately|refund|asap|unacceptable|furious|terrible|worst|lawyer|awful|ridiculous"
    r"|disgusted|outrageous|complain(t|ing)?|scam|fed up|still waiting|nobody answers|money back)\b",
    re.IGNORECASE,
)
_PLEASED = re.compile(
    r"\b(thank you so much|love|loved|wonderful|delighted|delicious|excellent|perfect|happy|sehr zufrieden)\b",
    re.IGNORECASE,
)
_MATTERS = ("title", "subject", "headline", "topic", "theme", "question")
_SUBJECTS = (
    *("name", "product", "product name", *_MATTERS, "item", "album", "song", "track", "book", "film", "event"),
    *("recipe", "place", "company", "company name", "article"),
)
_PEOPLE = (
    *("first name", "customer", "customer name", "full name", "sender", "from", "recipient", "to", "contact name"),
    *("last name", "user", "guest", "reader"),
)
_NOBODY = frozenset("anonymous unknown customer guest team".split())
_SUBJECT_RANK = {label: rank for rank, label in enumerate(_SUBJECTS)}
_OWN = frozenset(_SUBJECTS) | frozenset(_PEOPLE)


@dataclass(frozen=True)
class Topic:
    """A prompt's words, each kind computed when it is first read."""

    text: str
    title: str = ""
    """Of a section, the text of its numbered line."""

    @Lazy
    def lowered(self) -> str:
        """The text in lower case."""
        return self.text.lower()

    @Lazy
    def _lines(self) -> list[PromptLine]:
        """The lines that are not empty, without markup."""
        return [read_line(line) for line in plain(self.text).split("\n") if line and not line.isspace()]

    @Lazy
    def _read(self) -> tuple[list[Field], list[PromptLine]]:
        """The fields and all other lines; of a prompt in sections, only those before the first."""
        fields, others = [], []
        for line in self._lines:
            if line.number and self.sections:
                break
            text = line.text
            field = field_of(text) if not line.number and (":" in text or "\uff1a" in text) else None
            if field is not None:
                fields.append(field)
            elif fields and not fields[-1].value and fields[-1].label.tells and not line.item:
                fields[-1] = Field(fields[-1].label, text.strip())  # "Description:" has a line of its own
            else:
                others.append(line)
        return fields, others

    @Lazy
    def labels(self) -> dict[str, str]:
        """The values of lines such as "Name: Mountain Oolong", by label in lower case; the first of each label."""
        found: dict[str, str] = {}
        for field in self._read[0]:
            if field.value:
                found.setdefault(field.label.name, field.value)
        return found

    @Lazy
    def nulls(self) -> set[str]:
        """The labels without a value."""
        return {field.label.name for field in self._read[0] if not field.value}.difference(self.labels)

    @Lazy
    def heading(self) -> str:
        """The subject that a labelled line names; empty if none does."""
        if self.title:
            return name_of(self.title)
        if ranked := self.labels.keys() & _SUBJECT_RANK.keys():
            return name_of(self.labels[min(ranked, key=_SUBJECT_RANK.__getitem__)])
        if self.person:
            return ""
        return next((name_of(value) for label, value in self.labels.items() if label.endswith((" name", " title"))), "")

    @Lazy
    def matter(self) -> str:
        """The heading, if it is a message's own."""
        return next((self.heading for label in _MATTERS if label in self.labels), "")

    @Lazy
    def subject(self) -> str:
        """The subject in a few words."""
        if self.heading:
            return self.heading
        if self.sections:
            return self.sections[0].subject
        for line in self._read[1]:
            about = ordered_subject(line.text)
            if about is None:
                break
            if about:
                return about
        whole = trimmed(self._lines[0].text) if len(self._lines) == 1 and not self.labels else ""
        if whole and len(whole) <= _SHORT_LINE:
            return whole
        first = self.sentences[0] if self.sentences else ""
        if self.facts and not first:
            return name_of((self.items or self.facts)[0].phrase)
        short = trimmed(first.rstrip("!?"))
        return short if short and short.count(" ") <= _FEW else self.terms[0]

    @Lazy
    def person(self) -> str:
        """The person to greet: a first name, or the whole name if it has initials or a title; empty without a name."""
        for label in self._people:
            value = self.labels[label].partition("<")[0].partition("@")[0].rpartition(",")[2].strip()
            if value[:1].isalpha() and not value[0].islower() and value.lower() not in _NOBODY:
                words = value.split()
                return words[0] if len(words) == 2 and len(words[0]) > 2 and "." not in words[0] else value
        return ""

    @Lazy
    def _people(self) -> list[str]:
        return [label for label in _PEOPLE if label in self.labels] if self.labels else []

    @Lazy
    def sender(self) -> str:
        """The whole name of that person."""
        named = (self.labels[label].partition("<")[0].strip() for label in self._people)
        return next((name for name in named if name[:1].isalpha() and not name[0].islower()), "")

    @Lazy
    def told(self) -> list[Fact]:
        """The facts of fields with words, such as features and notes."""
        return self._facts[0]

    @Lazy
    def items(self) -> list[Fact]:
        """The lines of a list without their bullets, or the subjects of the sections."""
        if self.sections:
            return [Fact(topic.subject, topic.subject) for topic in self.sections]
        items = [trimmed(line.item) for line in self._read[1] if line.item and not is_prose(line.item)]
        return [Fact(item, item) for item in dict.fromkeys(items) if item]

    @Lazy
    def measured(self) -> list[Fact]:
        """The facts of fields with names and measures, without the subject and the ids."""
        return [] if self.sections else self._facts[1]  # in a prompt of sections these are counts

    @Lazy
    def facts(self) -> list[Fact]:
        """All facts of the record."""
        return [*self.told, *self.measured, *self.items]

    @Lazy
    def _facts(self) -> tuple[list[Fact], list[Fact]]:
        told: dict[Fact, None] = {}
        measured: dict[Fact, None] = {}
        for field in self._read[0]:
            if field.value and field.label.name not in _OWN and not is_prose(field.value):
                tells, found = field.facts
                (told if tells else measured).update(dict.fromkeys(found))
        return list(told), list(measured)

    @Lazy
    def written(self) -> list[str]:
        """The sentences of lines without a label, as in a letter or an article."""
        found: list[str] = []
        for line in self._read[1]:
            if not line.item or is_prose(line.item):
                found += repeatable(line.item or line.text)
            if len(found) > _MOST_SENTENCES:
                break
        return found

    @Lazy
    def sentences(self) -> list[str]:
        """All whole sentences, also those of labelled values."""
        labelled = [field.value for field in self._read[0] if field.label.name not in _OWN and is_prose(field.value)]
        found = [sentence for value in labelled for sentence in repeatable(value, 1)]
        return list(dict.fromkeys(found + self.written))

    @Lazy
    def questions(self) -> list[str]:
        """The written sentences that are questions."""
        return [sentence for sentence in self.written if sentence.endswith(("?", "\uff1f", "\u061f"))]

    @Lazy
    def language(self) -> str:
        """The ISO 639-1 code in a labelled line, or of the text."""
        told = next((self.labels[label] for label in ("language", "lang", "locale") if label in self.labels), "")
        if _LANGUAGE.fullmatch(told):
            return told[:2]
        return language_of(" ".join([self.heading, *self.written[:5]]))

    @Lazy
    def terms(self) -> list[str]:
        """Single words and short names, the most used first; never a number."""
        short = [
            fact.phrase for fact in self.told if fact.phrase.count(" ") < _FEW and _PLAIN_TERM.fullmatch(fact.phrase)
        ]
        values = [*self.labels.values(), *(line.item or line.text for line in self._read[1])]
        words = [word for word in _WORD.findall(" ".join(values)[:_READ]) if _is_term(word)]
        counted = Counter(word.lower() for word in words)
        often = sorted(dict.fromkeys(words), key=lambda word: (-counted[word.lower()], -min(len(word), 8)))
        found = {term.lower(): term for term in reversed([*short, *often])}
        return list(reversed(found.values())) or ["your question"]

    @Lazy
    def upset(self) -> bool:
        """Whether the writer sounds angry or in a hurry."""
        return _UPSET.search(self.text) is not None

    @Lazy
    def pleased(self) -> bool:
        """Whether the writer sounds glad."""
        return not self.upset and _PLEASED.search(self.text) is not None

    @Lazy
    def listed(self) -> list[int]:
        """The numbers of numbered lines, for answers that choose among them."""
        return list(dict.fromkeys(int(line.number) for line in self._lines if line.number))

    @Lazy
    def sections(self) -> "list[Topic]":
        """The topics of numbered lines, each with the lines below it; empty for a plain list."""
        if len(self.listed) < 2:
            return []
        found: list[list[str]] = []
        for line in self._lines:
            if line.number:
                found.append([f"Title: {line.item}"])
            elif found:
                found[-1].append(line.text)
        if all(len(lines) == 1 for lines in found[:-1]):
            return []
        return [Topic("\n".join(lines), lines[0].partition(" ")[2]) for lines in found]


@lru_cache(maxsize=64)
def topic_of(text: str) -> Topic:
    """The topic of a prompt, from its start and end. Lone surrogates, which JSON may contain, are left out."""
    if not text.isascii():
        text = _HALF.sub("", text)
    return Topic(text if len(text) <= 2 * _READ else f"{text[:_READ]}\n{text[-_READ:].partition(' ')[2]}")


def _is_term(word: str) -> bool:
    return (len(word) > _FEW or not word.isascii()) and word.lower() not in STOP_WORDS
