"""The command line: `trunkline run "task"`, `trunkline threads`, `trunkline logs RUN`, ..."""

import typer

from trunkline.commands import answers, files, keys, runs
from trunkline.commands.common import add

app = typer.Typer(
    help="Run tasks with agents on a Trunkline server, look at what they do, and answer them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

files_app = typer.Typer(help="The files of a thread's sandbox.", no_args_is_help=True)
keys_app = typer.Typer(help="API keys of the workspace; needs the scope admin.", no_args_is_help=True)
app.add_typer(files_app, name="files")
app.add_typer(keys_app, name="keys")

add(app, runs.run)
add(app, runs.logs)
add(app, runs.follow)
add(app, runs.threads)
add(app, runs.runs)
add(app, runs.cancel)
add(app, runs.retry)
add(app, answers.approvals)
add(app, answers.approve)
add(app, answers.reject)
add(app, answers.answer)
add(app, answers.resolve)
add(app, answers.publish)
add(files_app, files.list_files, "list")
add(files_app, files.get)
add(files_app, files.put)
add(keys_app, keys.list_keys, "list")
add(keys_app, keys.create)
add(keys_app, keys.revoke)
