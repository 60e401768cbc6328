"""A worker in the test's own loop, for runs that clients begin over HTTP."""

from typing import Any

from modem.agenda import Agenda
from shared.ids import SHARDS
from tests.gateway.support import Gateway
from tests.workflow.support import Playbook, a_runtime, turn
from workflow.engine.durable import durable
from workflow.engine.step import Step
from workflow.runner import Runner, Signals

ANSWER = "An agent's answer."


class Worker:
    """Agents say ANSWER. `ask` waits for a human, `pause` for the event `go`; `fall` fails the first time."""

    def __init__(self, gateway: Gateway) -> None:
        self.falls = 1
        self.out = gateway.app.state.services.outside
        flows = [durable("ask")(ask), durable("pause")(pause), durable("fall")(self.fall)]
        self.runner = Runner(self.out, a_runtime(Playbook([turn(ANSWER)] * 9), functions=flows))

    async def work(self, run_id: str) -> None:
        await Agenda(self.out).tick(range(SHARDS))
        await self.runner.execute(run_id, "w1", Signals())

    async def fall(self, step: Step, _: Any) -> Any:
        self.falls -= 1
        if self.falls >= 0:
            raise ValueError("It fell.")
        return "It stands."


async def ask(step: Step, input: Any) -> Any:
    return await step.approve({"question": input}, name="question")


async def pause(step: Step, input: Any) -> Any:
    return await step.wait_for_event("go", key=input, timeout=60)
