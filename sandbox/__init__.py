"""A local Messages API for demos, tests, rehearsals and load; it imports nothing of the rest of Presswork.

A request goes server -> service -> calls (refused or read) -> faults (what befalls it) -> replies (what is answered)
-> messages (the API's shapes). What reads a call: models (what each accepts), thinking, options, blocks, schemas.
What the answer says: shapes, topics, prose, answers. The accounts: limits, prompt_cache, counts. All other paths go
server -> endpoints -> batches or listing. What can be changed: switches.
"""

from sandbox.own_process import sandbox_process, serve
from sandbox.server import SANDBOX_HEADER, Sandbox
from sandbox.switches import Switches

__all__ = ["SANDBOX_HEADER", "Sandbox", "Switches", "sandbox_process", "serve"]
