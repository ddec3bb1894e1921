"""The machine protocol over HTTP: fetch a task, report its status, upload a result.

A key is good for its own machine and the tasks assigned to it: for any other task, and for one that does not exist, the
answer is 401, so that a key tells nothing about other machines' tasks.
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pidml.server.limits import json_object, media_type_of, number_in_path
from pidml.server.protocol import MACHINE_STATUSES, parse_file_type
from pidml.server.results import KeyReused, NewResult
from pidml.server.settings import ServerSettings
from pidml.server.store import ServerStore

MAX_NAME = 255
MAX_DESCRIPTION = 4096
MAX_IDEMPOTENCY_KEY = 255
_FIELD_BYTES = 16 * 1024


class MachineApi:
    """The three calls of a training machine."""

    def __init__(self, store: ServerStore, settings: ServerSettings) -> None:
        self.store = store
        self.settings = settings

    def routes(self) -> list[Route]:
        """Return the routes to serve."""
        return [
            Route("/training-machines/{machine_id}/training-task", self.fetch_task, methods=["GET"]),
            Route("/training-tasks/{task_id}/status", self.report_status, methods=["POST"]),
            Route("/training-tasks/{task_id}/training-task-results", self.upload_result, methods=["POST"]),
        ]

    async def fetch_task(self, request: Request) -> Response:
        """Assign the oldest queued task to the machine: 200, 400, 401 or 404.

        With an ``Idempotency-Key`` header, echoed to say that it is honoured, the same key gives the same task again.
        """
        if request.method != "GET":
            raise HTTPException(405, "a task is fetched with GET")  # HEAD would assign a task and not show it
        machine_id = number_in_path(request, "machine_id", 400, "the machine id")
        if not await run_in_threadpool(self.store.machine_is, machine_id, _key(request)):
            raise HTTPException(401, "there is no machine with this id and key")
        key = _idempotency_key(request)
        echo = {} if key is None else {"Idempotency-Key": key}
        task = await run_in_threadpool(self.store.assign_next, machine_id, key)
        if task is None:
            raise HTTPException(404, "no training task is queued", echo)
        return JSONResponse(task.as_protocol(), headers={"Cache-Control": "no-store", **echo})

    async def report_status(self, request: Request) -> Response:
        """Set the status of a task: 200 and nothing, 401 or 422."""
        task_id = await self._own_task(request)
        body = await json_object(request, self.settings.max_json_bytes)
        number = body.get("Status")
        if type(number) is not int or number not in set(MACHINE_STATUSES):
            allowed = ", ".join(f"{int(status)} ({status.name.capitalize()})" for status in MACHINE_STATUSES)
            raise HTTPException(422, f"Status is none of those a machine may set: {allowed}")
        status = next(status for status in MACHINE_STATUSES if status == number)
        await run_in_threadpool(self.store.set_status, task_id, status, "machine")
        return Response()

    async def upload_result(self, request: Request) -> Response:
        """Keep an uploaded file: 201 and the result, 401, 413 or 422.

        With an ``Idempotency-Key`` header the same key for the same task gives the same result again, marked by the
        header ``Idempotent-Replayed: true``.
        """
        task_id = await self._own_task(request)
        key = _idempotency_key(request)
        async with await _multipart(request) as form:
            new, file = _new_result(task_id, form, key)
            if (file.size or 0) > self.settings.max_upload_bytes:
                raise HTTPException(413, f"the file is larger than {self.settings.max_upload_bytes} bytes")
            try:
                result, created = await run_in_threadpool(self.store.add_result, new, file.file)
            except KeyReused as error:
                raise HTTPException(422, f"the Idempotency-Key was used before: {error}") from None
        headers = {} if created else {"Idempotent-Replayed": "true"}
        return JSONResponse(result.as_protocol(), 201, headers)

    async def _own_task(self, request: Request) -> int:
        task_id = number_in_path(request, "task_id", 400, "the task id")
        if not await run_in_threadpool(self.store.task_is_of, task_id, _key(request)):
            raise HTTPException(401, "there is no task with this id assigned to a machine with this key")
        return task_id


def _key(request: Request) -> str:
    return request.headers.get("secret-id", "")


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isascii() and key.isprintable()):
        raise HTTPException(422, f"the Idempotency-Key is not 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters")
    return key


class _Form:
    """A parsed form whose temporary files are closed at the end of a ``with`` block."""

    def __init__(self, data: FormData) -> None:
        self._data = data

    async def __aenter__(self) -> FormData:
        return self._data

    async def __aexit__(self, *_: object) -> None:
        await self._data.close()


async def _multipart(request: Request) -> _Form:
    if media_type_of(request) != "multipart/form-data":
        raise HTTPException(422, "the content type is not multipart/form-data")
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=10, max_part_size=_FIELD_BYTES)
    try:
        return _Form(await parser.parse())
    except (MultiPartException, ValueError) as error:  # ValueError: text that its charset cannot decode
        reason = error.message if isinstance(error, MultiPartException) else "a field is not text"
        raise HTTPException(422, f"the multipart form cannot be read: {reason}") from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection ended before the form did") from None


def _new_result(task_id: int, form: FormData, key: str | None) -> tuple[NewResult, UploadFile]:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise HTTPException(422, "there is no file part named file")
    name, description, type_text = (_text(form, field) for field in ("name", "description", "file-type"))
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise HTTPException(422, f"name is not 1 to {MAX_NAME} printable characters on one line")
    if len(description) > MAX_DESCRIPTION or not description.translate({9: 32, 10: 32, 13: 32}).isprintable():
        raise HTTPException(422, f"description is longer than {MAX_DESCRIPTION} characters or not printable")
    file_type = parse_file_type(type_text)
    if file_type is None:
        raise HTTPException(422, "file-type is none of 0 (Log), 1 (Image), 2 (Onnx)")
    return NewResult(task_id, name, description, file_type, _file_name(file.filename or ""), key), file


def _text(form: FormData, field: str) -> str:
    value = form.get(field)
    if not isinstance(value, str):
        raise HTTPException(422, f"there is no text field named {field}")
    return value


def _file_name(name: str) -> str:
    """Return the uploaded file's name if it is a base name that can be shown and saved under, or refuse it."""
    is_base = name not in ("", ".", "..") and "/" not in name and "\\" not in name
    if not is_base or len(name.encode()) > MAX_NAME or not name.isprintable():
        raise HTTPException(422, f"the file's name is not a plain base name of at most {MAX_NAME} bytes")
    return name
