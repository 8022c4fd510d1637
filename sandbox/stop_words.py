"""Words that say nothing about a subject. No text should end with one."""

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
    seems hoping hope looking trying tried said told asked going went sure maybe perhaps yes okay""".split()
)
