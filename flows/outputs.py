"""What an answer must be before it counts as content: one pydantic class for each kind of answer.

A template names its class in `output:`. The class plays two parts: its JSON schema tells Claude what to
write, and its constraints decide whether the answer is valid. The API enforces shapes but neither lengths nor
counts, so a bound that matters is a constraint here and is said again in the description, for Claude.

It stands alone, below all of flows, so that a user can write a class here without meeting the engine.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def words(fewest: int, most: int) -> AfterValidator:
    """A bound on the number of words, for text in languages that put spaces between them."""

    def check(text: str) -> str:
        count = len(text.split())
        if not fewest <= count <= most:
            raise ValueError(f"must have {fewest} to {most} words, and has {count}")
        return text

    return AfterValidator(check)


def _one_line(text: str) -> str:
    if len(text.splitlines()) > 1:
        raise ValueError("must be a single line")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""Text for a place that shows a single line: a title, a subject line, a bullet point."""

Language = Annotated[str, Field(pattern=r"^[a-z]{2}$")]
"""An ISO 639-1 code."""


class Output(BaseModel):
    """The base of every answer: unknown fields are refused, blanks around text are dropped."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class ProductCopy(Output):
    """The words of one product's page in the shop."""

    title: Line = Field(
        min_length=5,
        max_length=70,
        description="The product's name with the one thing that sets it apart, at most 70 characters",
    )
    description: Annotated[str, words(25, 70)] = Field(
        description="The short description under the title, in 25 to 70 words of flowing text",
    )
    bullets: list[Annotated[Line, Field(min_length=10, max_length=120)]] = Field(
        min_length=3,
        max_length=5,
        description="Three to five facts to buy by, each a phrase of 10 to 120 characters, no full stop",
    )
    meta_description: Line = Field(
        min_length=50,
        max_length=160,
        description="One sentence for search results that names the product, 50 to 160 characters",
    )


TicketCategory = Literal[
    "delivery",
    "damaged_or_faulty",
    "return_or_refund",
    "order_change",
    "product_question",
    "wholesale",
    "praise",
    "spam",
    "other",
]


class TicketTriage(Output):
    """What a support ticket is about, and who should answer it."""

    category: TicketCategory = Field(description="What the customer wants, by their main request")
    urgent: bool = Field(
        description="True where a person must look today: health, a disputed charge, a threat, a close date",
    )
    answerable: bool = Field(
        description="True where the ticket and the shop's rules are enough for a full reply; false for spam",
    )
    sentiment: Literal["positive", "neutral", "negative", "angry"] = Field(
        description="How the customer feels, by their words alone",
    )
    language: Language = Field(
        description="The language the customer wrote in, as a two-letter ISO 639-1 code such as en",
    )
    summary: Annotated[Line, words(3, 40)] = Field(
        description="What happened and what is asked for, in English, one sentence of 3 to 40 words",
    )


class SupportReply(Output):
    """An e-mail that answers a support ticket."""

    language: Language = Field(
        description="The language of the reply, as a two-letter ISO 639-1 code such as en",
    )
    subject: Line = Field(
        min_length=3,
        max_length=90,
        description="The e-mail's subject line in the language of the reply, at most 90 characters",
    )
    # Counted in characters: Japanese and Chinese put no spaces between words.
    body: str = Field(
        min_length=60,
        max_length=1800,
        description="The e-mail itself, from greeting to signature, in plain text of 60 to 1800 characters",
    )


class ArticleSummary(Output):
    """One article, told in the space a newsletter has for it."""

    headline: Line = Field(
        min_length=10,
        max_length=80,
        description="A headline that says what the article found, at most 80 characters",
    )
    summary: Annotated[str, words(25, 60)] = Field(
        description="The article in 25 to 60 words, with its most useful fact or figure",
    )
    takeaway: Annotated[Line, words(5, 25)] = Field(
        description="What a reader can do with it at home, one sentence of 5 to 25 words",
    )


class DigestEntry(Output):
    """One entry of a newsletter."""

    headline: Line = Field(
        min_length=10,
        max_length=80,
        description="The entry's headline, at most 80 characters",
    )
    teaser: Annotated[str, words(10, 45)] = Field(
        description="Why a reader should open this article, in 10 to 45 words",
    )


class NewsletterDigest(Output):
    """A whole newsletter, made from the summaries of its articles."""

    title: Line = Field(min_length=5, max_length=70, description="This issue's title, at most 70 characters")
    intro: Annotated[str, words(30, 90)] = Field(
        description="The opening paragraph, 30 to 90 words, that shows what the entries have in common",
    )
    entries: list[DigestEntry] = Field(
        min_length=1,
        max_length=8,
        description="One to eight entries, the best first, each made from one of the summaries",
    )


class SubjectLine(Output):
    """What an inbox shows of a newsletter before it is opened."""

    subject: Line = Field(min_length=5, max_length=60, description="The subject line, at most 60 characters")
    preheader: Line = Field(
        min_length=20,
        max_length=110,
        description="The line after the subject in the inbox, 20 to 110 characters, repeating none of it",
    )


class SubjectChoice(Output):
    """Which of five subject lines to send."""

    chosen: int = Field(ge=1, le=5, description="The number of the chosen subject line, from 1 to 5")
    reason: Annotated[str, words(8, 50)] = Field(
        description="Why readers will open this one rather than the next best, in 8 to 50 words",
    )


class AlbumNote(Output):
    """A note that makes someone want to hear an album."""

    title: Line = Field(
        min_length=5,
        max_length=80,
        description="A title for the note, not just the album's name, at most 80 characters",
    )
    note: Annotated[str, words(40, 80)] = Field(
        description="The note itself, 40 to 80 words of flowing text",
    )
    moments: list[Annotated[Line, Field(min_length=10, max_length=160)]] = Field(
        min_length=3,
        max_length=3,
        description="Exactly three listening moments, each a track's name and what to listen for in it",
    )


class CustomerThanks(Output):
    """An e-mail that thanks a customer for what they bought."""

    language: Language = Field(
        description="The language of the e-mail, as a two-letter ISO 639-1 code such as en",
    )
    subject: Line = Field(
        min_length=5,
        max_length=70,
        description="The subject line in that language, at most 70 characters",
    )
    body: Annotated[str, words(40, 120)] = Field(
        description="The e-mail in that language, from greeting to signature, 40 to 120 words of plain text",
    )
