"""A local Messages API for demos, tests, rehearsals and load; it imports nothing of the rest of Presswork.

A request goes server -> service -> calls (refused or read) -> faults (what befalls it) -> replies (what is answered)
-> messages (the API's shapes). Beside that way: schemas and shapes (what an answer must look like), topics, prose and
answers (what it says), limits, prompt_cache and counts (the accounts), switches (what can be changed).
"""

from flows.sandbox.processes import sandbox_process, serve
from flows.sandbox.server import SANDBOX_HEADER, Sandbox
from flows.sandbox.switches import Switches

__all__ = ["SANDBOX_HEADER", "Sandbox", "Switches", "sandbox_process", "serve"]
