"""The application: `uvicorn app.main:app`."""

from fastapi import FastAPI

from app.notes import NoteStore, build_router

TITLE = @@title.json@@


def create_app() -> FastAPI:
    app = FastAPI(title=TITLE)
    app.include_router(build_router(NoteStore()))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


app = create_app()
