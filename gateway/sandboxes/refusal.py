"""An answer in the place of a sandbox's."""

from http import HTTPStatus

from starlette.responses import PlainTextResponse, Response

ENDED = "This link has ended."


class Refusal(Exception):
    """Plain words for whoever looks at the page."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text

    def page(self) -> Response:
        text = f"{self.status} {HTTPStatus(self.status).phrase}\n\n{self.text}\n"
        return PlainTextResponse(text, self.status, {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
