"""The sandbox's stock of sentences. {s} is the subject; {f} and {g} are facts. {S} and {F} start a sentence.

A fact may be any phrase, with or without a verb. It comes after a colon or alone, where every phrase is grammatical.
"""

OPENINGS = (
    "Meet {s}: {f}.",
    "{S} in a few words: {f}; {g}.",
    "The case for {s} is short: {f}; {g}.",
    "There are longer ways to describe {s}, but this will do: {f}.",
    "Say hello to {s}: {f}.",
    "{S} keeps it simple: {f}; {g}.",
    "If {s} came with a motto, it would be this: {f}.",
    "Ask around about {s}, and you will hear the same thing: {f}.",
)
CONTENTS = (
    "Here is what you will find: {f}; {g}.",
    "There is something for everyone: {f}; {g}.",
    "To begin with: {f}; {g}.",
)
ALSO = (
    "Then comes this: {f}.",
    "Also here: {f}; {g}.",
    "After that: {f}.",
    "And for a quiet moment: {f}.",
    "Not to be missed: {f}.",
)
MORE = (
    "Worth knowing: {f}.",
    "Our favourite detail: {f}.",
    "And then there is this: {f}.",
    "Remember this much: {f}; {g}.",
    "Not to be forgotten: {f}.",
    "One thing more: {f}.",
    "It is mentioned for a reason: {f}.",
    "For the curious: {f}; {g}.",
)
# These are true of anything.
ALWAYS = (
    "The rest is a matter of taste.",
    "That is the short version, and it is true.",
    "No drum roll, just the facts.",
    "You can judge the rest for yourself.",
    "The long version takes a little longer.",
    "Good things rarely need many words.",
    "Nothing here was added for effect.",
    "What is left out can wait.",
    "It is as plain as it sounds.",
    "Take your time with it.",
    "It needs no louder words than these.",
    "We checked, and it still holds.",
)
ABOUT = (
    "There is more to {s} than one line can hold.",
    "A few words on {s} will do.",
    "{S} deserves a second look.",
    "This is about {s}, and nothing else.",
)
HEADLINES = ("{S}", "{S}, in short", "{S}, at a glance", "{S}: the short version", "{S}, told in a minute")
SEVERAL = ("{S}, and more", "{S}, and what came next", "First of all: {s}")
MESSAGES = ("Your message: {s}", "About your message: {s}", "{S}: our answer")
PERSONAL = ("A few lines for {p}", "{p}, this one is for you", "A note for {p}")
POINTS = ("A word about {s}", "{S}, as described", "The short story of {s}", "{S}, plain and simple", "More about {s}")
ACTIONS = ("Discover {s}", "See {s}", "Try {s} today", "Ask about {s}")
QUESTIONS = ("What should I know about {s}?", "Is {s} right for me?", "Where do I begin with {s}?", "Why {s}?")
REASONS = (
    "Because one detail settles it: {f}.",
    "Because the text says so in plain words: {f}.",
    "Because of what it says about {s}: {f}.",
)
BARE_REASONS = (
    "Because {s} says it in the fewest words.",
    "Because {s} leaves little room for doubt.",
    "Because {s} is what it comes down to.",
)
THANKS = (
    "We have counted, and we are grateful: {f}.",
    "It makes us smile on this side of the counter: {f}.",
    "You are the reason why we like to open in the morning.",
    "We hope to see you again soon.",
    "If there is anything that we can do better, just answer this message.",
)
