"""Plain English about a topic, in the form that a field asks for: titles, sentences, letters, reasons, points.

The sentences are frames that take almost any phrase; what fills them are the prompt's own words.
"""

from sandbox.draws import Draw
from sandbox.topics import STOP_WORDS, Topic

_SENTENCES = (
    "{S} brings together {a} and {b}.",
    "What stands out is {a}, with {b} close behind.",
    "If {a} matters to you, {s} is worth a closer look.",
    "From {a} to {b}, nothing is left to chance.",
    "{A} comes first, and {b} follows naturally.",
    "You will notice {a} at once, and {b} soon after.",
    "At the heart of it is {a}.",
    "There is room here for {a} as well as {b}.",
    "It keeps {a} in view without losing sight of {b}.",
    "{S} is for anyone who cares about {a}.",
    "Think of {a} first, and the rest falls into place.",
    "The story begins with {a} and leads on to {b}.",
    "Simple and honest, {s} puts {a} where it belongs.",
    "{A} makes the difference, day after day.",
)
_LETTERS = (
    "We have looked into {a} and are putting it right.",
    "You mentioned {a}, and we understand why {b} matters to you.",
    "Our team is checking {b} today and will write to you again.",
    "We will keep you informed about {a} at every step.",
    "If {b} is still open by then, please answer this message.",
    "We have made a note of {a} on your account.",
    "You do not need to do anything more about {b}.",
    "We are sorry for the trouble with {a}.",
)
_TITLES = (
    "{S}: {a}",
    "{S} and {a}",
    "{S} with {a} and {b}",
    "{A} Meets {S}",
    "Why {S} Means {a}",
    "{S}, {a} Included",
)
_POINTS = (
    "{A} you can rely on",
    "Made with {a} in mind",
    "{A}, and {b} besides",
    "{A} from the start",
    "All about {a}",
)
_REASONS = (
    "Because {a} is mentioned together with {b}.",
    "Because the text speaks of {a}.",
    "Because {a} points to {s}, and {b} supports it.",
)
_ACTIONS = ("Discover {s}", "See {s}", "Try {s} today", "Ask about {s}")
_QUESTIONS = ("What makes {a} special?", "How does {a} go with {b}?", "Why choose {s}?")
_DANGLING = STOP_WORDS | {"-", "&", "meets", "means"}


class ProseWriter:
    """Writes about one topic; the n-th text of a form differs from those before it."""

    def __init__(self, topic: Topic, draw: Draw) -> None:
        """The draw decides where to begin; after that the frames and details take turns."""
        self.topic = topic
        self.draw = draw
        self._turn = draw.below(1 << 16)
        subject = spoken(topic.subject)
        self._values = {"s": subject, "S": capital(subject)}
        self._spoken = [spoken(phrase) for phrase in topic.details]
        self._capitals = [capital(phrase) for phrase in self._spoken]

    def text(self, form: str, words: int) -> str:
        """A text of the form, of about so many words where its form can be that long."""
        match form:
            case "title":
                return headline(self._fill(_TITLES))
            case "point":
                return self._fill(_POINTS)
            case "reason":
                return self._run(_REASONS, words)
            case "action":
                return self._fill(_ACTIONS)
            case "question":
                return self._fill(_QUESTIONS)
            case "term":
                return self.phrase().lower()
            case "letter":
                return self._letter(words)
            case _:
                return self._run(_SENTENCES, words)

    def phrase(self) -> str:
        """The next detail."""
        self._turn += 1
        return self.topic.details[self._turn % len(self.topic.details)]

    def sentence(self) -> str:
        """The next plain sentence."""
        return self._fill(_SENTENCES)

    def sentences(self, count: int, form: str) -> str:
        """So many sentences."""
        first = [self._fill(_REASONS)] if form == "reason" else []
        return " ".join(first + [self.sentence() for _ in range(count - len(first))])

    def _fill(self, frames: tuple[str, ...]) -> str:
        turn = self._turn = self._turn + 1
        spoken, size = self._spoken, len(self._spoken)
        one = turn % size
        # The second detail moves on after a whole round, so that a long text does not repeat itself soon.
        other = (one + 1 + turn // size % (size - 1)) % size
        values = self._values
        values["a"], values["b"], values["A"] = spoken[one], spoken[other], self._capitals[one]
        return frames[turn % len(frames)].format_map(values)

    def _run(self, frames: tuple[str, ...], words: int) -> str:
        text = self._fill(frames)
        count = text.count(" ") + 1
        while count < words:
            more = self._fill(_SENTENCES)
            text += " " + more
            count += more.count(" ") + 1
        return text

    def _letter(self, words: int) -> str:
        greeting = f"Hello {self.topic.person}," if self.topic.person else "Hello,"
        opening = f"Thank you for writing to us about {self.phrase()}."
        closing = "Kind regards,\nThe team"
        text = [opening, self._fill(_LETTERS), self._fill(_LETTERS)]
        while sum(part.count(" ") + 1 for part in text) + 6 < words:
            text.append(self._fill(_LETTERS))
        return f"{greeting}\n\n{' '.join(text)}\n\n{closing}"


def spoken(phrase: str) -> str:
    """A phrase as it stands in a sentence: a single plain noun gets its article."""
    bare = " " in phrase or not phrase.isalpha() or not phrase.islower() or phrase.endswith(("s", "ing"))
    return phrase if bare else f"the {phrase}"


def capital(text: str) -> str:
    """With a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def headline(text: str) -> str:
    """Title case that leaves short joining words and words with capitals alone."""
    words = text.split()
    return " ".join(w if i and w.lower() in STOP_WORDS else capital(w) for i, w in enumerate(words))


def cut_words(text: str, most: int) -> str:
    """At most so many words, ending as a text ends and not on a joining word."""
    parts = text.split(None, most)
    return text if len(parts) <= most else tidy(text[: -len(parts[most])].rstrip(), text)


def tidy(part: str, whole: str) -> str:
    """A part of a text without dangling words, with the stop at its end that the whole had."""
    words = part.rstrip(" ,;:-\n").split(" ")
    while len(words) > 1 and words[-1].lower().rstrip(".,") in _DANGLING:
        words.pop()
    text = " ".join(words).rstrip(" ,;:-\n")
    return text + "." if whole.endswith(".") and text[-1:] not in ".!?" else text
