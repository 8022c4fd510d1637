"""What a prompt is about, in its own words: subject, details, labelled values, and whether somebody is upset."""

import re
from dataclasses import dataclass
from functools import cached_property

# Enough to find what a prompt is about; a prompt may have a million tokens, and only its ends are read.
_READ = 4_000
# With fewer phrases, their single words are written about too, and what may be said of anything.
_FEW = 3
_PADDING = ("every detail", "the next step", "your question")
_LABEL = re.compile(r"^[ \t]*[-*]?[ \t]*\**([A-Za-z][A-Za-z0-9 _/-]{0,30}?)\**:\**[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_LISTED = re.compile(r"^[ \t]*(?:#|\[|\()?(\d{1,4})[.)\]:][ \t]+\S", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z0-9][\w'\u2019&+-]*|[.,;:!?()\n|]")
_END = re.compile(r"[.;!?|]|, ")
_UPSET = re.compile(
    r"!!|\b(angry|urgent(ly)?|immediately|refund|asap|unacceptable|furious|terrible|worst|lawyer|awful|ridiculous"
    r"|disgusted|outrageous|complain(t|ing)?|scam|fed up|still waiting)\b",
    re.IGNORECASE,
)
_SUBJECTS = ("name", "product", "title", "subject", "headline", "topic", "item", "theme")
_PEOPLE = (
    "customer",
    "customer name",
    "customer_name",
    "first name",
    "first_name",
    "sender",
    "from",
    "recipient",
    "to",
)
_NO_DETAIL = frozenset(_SUBJECTS) | frozenset(_PEOPLE) | {"sku", "id", "key", "date", "email", "language", "price"}
STOP_WORDS = frozenset(
    """a about above after again all also am an and any are aren't as at back be because been before being below
    between both but by came can can't cannot come could did didn't do does doesn't doing don't done down during each
    else etc even ever every few for from further get gets got had has hasn't have haven't having he her here hers him
    his how i i'd i'll i'm i've if in into is isn't it it's its itself just keep know let like made make many may me
    might more most much must my myself need never no nor not nothing now of off on once one only or other our ours
    out over own per please quite rather really said same say says see shall she should so some still such take tell
    than thank thanks that that's the their them then there these they they're thing things think this those though
    through to too under until up upon us use used very want wants was wasn't way we well were what when where which
    while who whom whose why will with within without won't would write writing yet you you'd you'll you're you've
    your yours hello hi dear regards following given answer return reply json text user message null none true
    false arrived ordered bought came received happened today yesterday tomorrow summarise summarize describe classify
    translate create generate extract rank pick choose decide rate improve list unacceptable angry ago gave given seem
    seems hoping hope looking trying tried said told asked going went sure maybe perhaps yes okay
    broken late wrong missing damaged lost""".split()
)


@dataclass(frozen=True)
class Topic:
    """A prompt's words, found as they are asked for."""

    text: str

    @cached_property
    def lowered(self) -> str:
        """The text in lower case."""
        return self.text.lower()

    @cached_property
    def labels(self) -> dict[str, str]:
        """The values of lines such as "Name: Mountain Oolong", by label in lower case."""
        return {match[1].strip().lower(): match[2] for match in _LABEL.finditer(self.text)}

    @cached_property
    def subject(self) -> str:
        """What it is about, in a few words."""
        for label in _SUBJECTS:
            if label in self.labels:
                return shorten(self.labels[label])
        return self.phrases[0]

    @cached_property
    def person(self) -> str:
        """Whom to greet; empty where nobody is named."""
        for label in _PEOPLE:
            value = self.labels.get(label, "")
            if value[:1].isupper():
                return re.split(r"[\s,<@]", value)[0]
        return ""

    @cached_property
    def details(self) -> list[str]:
        """Short phrases to write about, three at the least, none of them the subject."""
        about = self.subject.lower()
        found = [phrase for phrase in self.phrases if phrase.lower() not in about and about not in phrase.lower()]
        if len(found) < _FEW:
            words = [word for phrase in self.phrases for word in phrase.split() if word.lower() not in about]
            found += [word for word in dict.fromkeys(words) if word not in found and len(word) > _FEW]
        return found if len(found) >= _FEW else [*found, *_PADDING[: _FEW - len(found)]]

    @cached_property
    def phrases(self) -> list[str]:
        """Runs of telling words, in the order of the text: labelled values first, or all of the text."""
        told = [value for label, value in self.labels.items() if label not in _NO_DETAIL]
        found = _phrases("\n".join(told)) if told else []
        if len(found) < 3:
            found += [phrase for phrase in _phrases(_LABEL.sub(r"\2", self.text)) if phrase not in found]
        return found or ["your question"]

    @cached_property
    def upset(self) -> bool:
        """Whether somebody sounds angry or in a hurry."""
        return _UPSET.search(self.text) is not None

    @cached_property
    def listed(self) -> list[int]:
        """The numbers of numbered lines, for answers that choose among them."""
        return list(dict.fromkeys(int(match[1]) for match in _LISTED.finditer(self.text)))


def topic_of(text: str) -> Topic:
    """The topic of a prompt, from its beginning and end."""
    return Topic(text if len(text) <= 2 * _READ else f"{text[:_READ]}\n{text[-_READ:]}")


def shorten(text: str, words: int = 5) -> str:
    """The first words of a text, without what follows a stop."""
    return " ".join(_END.split(text, 1)[0].split()[:words]) or text[:40]


def _phrases(text: str) -> list[str]:
    """Runs of up to three words between stop words and stops (as RAKE has it), the first 24 of them."""
    found: dict[str, None] = {}
    run: list[str] = []
    for word in _WORD.findall(text):
        stop = len(word) < 2 or word.lower() in STOP_WORDS or word.endswith("ly")
        if run and (stop or len(run) == 3):
            found[" ".join(run)] = None
            run = []
            if len(found) == 24:
                return list(found)
        if not stop:
            run.append(word)
    if run:
        found[" ".join(run)] = None
    return [phrase for phrase in found if len(phrase) > 3 and not phrase.isdecimal()]
