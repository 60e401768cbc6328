"""Notes, kept in memory: an example of a resource, to be replaced."""

from itertools import count

from fastapi import APIRouter, HTTPException, status
from pydantic import BaseModel, Field


class NewNote(BaseModel):
    text: str = Field(min_length=1, max_length=1000)


class Note(NewNote):
    id: int


class NoteStore:
    def __init__(self) -> None:
        self._ids = count(1)
        self._notes: dict[int, Note] = {}

    def add(self, note: NewNote) -> Note:
        added = Note(id=next(self._ids), text=note.text)
        self._notes[added.id] = added
        return added

    def get(self, note_id: int) -> Note | None:
        return self._notes.get(note_id)

    def list(self) -> list[Note]:
        return [*self._notes.values()]


def build_router(store: NoteStore) -> APIRouter:
    router = APIRouter(prefix="/notes", tags=["notes"])

    @router.get("")
    async def list_notes() -> list[Note]:
        return store.list()

    @router.post("", status_code=status.HTTP_201_CREATED)
    async def add_note(note: NewNote) -> Note:
        return store.add(note)

    @router.get("/{note_id}")
    async def get_note(note_id: int) -> Note:
        note = store.get(note_id)
        if note is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, f"There is no note {note_id}.")
        return note

    return router
