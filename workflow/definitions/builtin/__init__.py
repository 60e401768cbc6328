"""The kinds of agents that come with Trunkline. The prompt of each but GENERAL is the file named as it, beside this."""

from shared.workers.catalogue import DefinitionCard

LOOK = ("read_file", "ls", "grep", "glob")
PLAN = ("job_plan", "todo_read", "todo_write")
WORK = (*LOOK, "write_files", "edit_file", "multi_edit", "bash", "bash_output", "bash_kill")
WEB = ("web_search", "web_fetch")

GENERAL = DefinitionCard("agent", "Does what it is told to, with all tools, as a run without an agent does.", "builtin")

BUILT_IN = (
    DefinitionCard(
        "chat",
        "Answers and converses; looks things up on the web where it may. It has no sandbox.",
        "builtin",
        tools=WEB,
        limits={"max_turns": 12},
        sandbox=False,
    ),
    DefinitionCard(
        "coder",
        "Changes code: reads it first, edits it, runs its tests.",
        "builtin",
        tools=(*WORK, *PLAN, "web_fetch", "delegate"),
        limits={"max_turns": 80},
    ),
    DefinitionCard(
        "builder",
        "Makes an application from an idea, from a template on, and shows it running.",
        "builtin",
        tools=(*WORK, *PLAN, "use_template", "expose_port", "suggest_next_steps", "web_fetch"),
        limits={"max_turns": 100},
    ),
    DefinitionCard(
        "reviewer",
        "Reads code and says what is wrong with it, each finding with its place and its proof. It changes no file.",
        "builtin",
        tools=(*LOOK, "bash", "bash_output", "bash_kill", "todo_read", "todo_write"),
        limits={"max_turns": 50},
    ),
    DefinitionCard(
        "researcher",
        "Answers a question from sources, and names them.",
        "builtin",
        tools=(*WEB, *LOOK, "write_files", *PLAN, "delegate"),
        limits={"max_turns": 60},
    ),
)
