"""A process of its own that tries a chat template, which is a program that a model's folder brings.

It renders some messages and ends; ``srlm.policies.chat_template`` ends it where it takes too long.
The environment is like transformers'. It imports nothing of srlm. From standard input: JSON with
``template``, ``chats`` and ``arguments``.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime

SECONDS, MEMORY = 2, 1 << 30
"""Of the processor, and bytes, that rendering may take, where the system can be told."""


def main() -> None:
    """Render; exit code 3: out of memory. Other errors are told where it is used."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    asked = json.load(sys.stdin)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda x, **_: json.dumps(x)
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    try:
        template = environment.from_string(asked["template"])
        for chat in asked["chats"]:
            template.render(messages=chat, add_generation_prompt=True, **asked["arguments"])
    except MemoryError:
        sys.exit(3)
    except (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
            ValueError):  # fmt: skip
        return


if __name__ == "__main__":
    main()
