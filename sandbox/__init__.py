"""A local Messages API for demos, tests, rehearsals and load tests. It imports nothing from the rest of Presswork.

A request goes server (with wire) -> service -> calls -> faults -> replies -> messages:

- calls reads or refuses it, with known (the models), thinking, request_options, blocks and request_schemas. The
  latter makes the schema a shape, with shaping and hints. error_shapes has the refusals.
- faults draws, with draws, what goes wrong with the request. spoiling breaks the answer accordingly.
- replies answers it. filling fills the shape, with formats, patterns and prose; lengths fits the texts to their
  fields. prose words what topics reads from the prompt, with plain_text, prompt_lines, record_fields, languages,
  stop_words and lazy. frames and letters are its stock of sentences.
- service keeps the accounts: limits, prompt_cache and counts, by the clocks. A simulation uses it without a server.

All other paths go server -> endpoints -> batches or listing. switches lists the settings. own_process and __main__
run the sandbox in its own process.
"""

from sandbox.own_process import sandbox_process, serve
from sandbox.server import Sandbox
from sandbox.service import SANDBOX_HEADER
from sandbox.switches import Switches

__all__ = ["SANDBOX_HEADER", "Sandbox", "Switches", "sandbox_process", "serve"]
