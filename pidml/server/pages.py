"""The pages: tasks, machines, the form that queues a task, and the files of results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from pidml.errors import SpecError
from pidml.server.access import CSRF_FIELD, Access
from pidml.server.forms import PREFIX, QueueForm
from pidml.server.grid import Grid
from pidml.server.limits import form_fields, number_in_path
from pidml.server.protocol import FINISHED_STATUSES, FileType, TaskStatus
from pidml.server.records import Task
from pidml.server.rendering import environment
from pidml.server.settings import ServerSettings
from pidml.server.store import ServerStore
from pidml.spec.deployed_fields import DEPLOYED_FIELDS
from pidml.species import TARGET_NAMES

TASKS_PER_PAGE = 100
GRID_FILES_SHOWN = 500
REFRESH_SECONDS = 10
STATUS_ORDER = (*sorted(set(TaskStatus) - {TaskStatus.FAILED}), TaskStatus.FAILED)
ALWAYS_COUNTED = (TaskStatus.QUEUED, TaskStatus.TRAINING, TaskStatus.COMPLETED, TaskStatus.FAILED)
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"

Endpoint = Callable[[Request], Awaitable[Response]]
FormEndpoint = Callable[[Request, list[tuple[str, str]]], Awaitable[Response]]


class Pages:
    """The pages for people."""

    def __init__(self, store: ServerStore, settings: ServerSettings, grid: Grid | None) -> None:
        self.store = store
        self.settings = settings
        self.grid = grid
        self.access = Access(settings)

    def routes(self) -> list[Route]:
        """Return the routes to serve."""
        return [
            Route("/", self._page(self.list_tasks)),
            Route("/tasks/new", self._page(self.show_queue_form)),
            Route("/tasks", self._page(self.to_tasks)),
            Route("/tasks", self._form(self.queue_task), methods=["POST"]),
            Route("/tasks/{task_id}", self._page(self.show_task)),
            Route("/tasks/{task_id}/withdraw", self._form(self.withdraw_task), methods=["POST"]),
            Route("/tasks/{task_id}/copy", self._form(self.copy_task), methods=["POST"]),
            Route("/results/{result_id}/file", self._page(self.send_file)),
            Route("/machines", self._page(self.list_machines)),
            Route("/machines", self._form(self.register_machine), methods=["POST"]),
            Route("/login", self.show_login),
            Route("/login", self.log_in, methods=["POST"]),
            Route("/logout", self._form(self.log_out), methods=["POST"]),
        ]

    # What every page has in common

    def _page(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            self.access.check_host(request)
            if not self.access.is_allowed(request):
                return RedirectResponse("/login", 303)
            return await endpoint(request)

        return guarded

    def _form(self, endpoint: FormEndpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            fields = await form_fields(request, self.settings.max_form_bytes)
            self.access.check_form(request, dict(fields).get(CSRF_FIELD, ""))
            return await endpoint(request, fields)

        return self._page(guarded)

    def render(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page made of a template; a browser without session gets one."""
        token, cookie = self.access.form_token(request)
        page = environment().get_template(template)
        text = page.render(
            **values,
            form_token=token,
            form_token_field=CSRF_FIELD,
            path=request.scope["path"],
            now=time.time(),
            can_log_out=self.access.needs_login and self.access.is_allowed(request),
        )
        response = HTMLResponse(text, status, {"Cache-Control": "no-store"})
        if cookie is not None:
            self.access.remember(request, response, cookie)
        return response

    def error_page(self, request: Request, error: HTTPException) -> Response:
        """Return the page that explains a refusal."""
        return self.render(
            request, "error.html", error.status_code, title=f"Error {error.status_code}", text=error.detail
        )

    # Tasks

    async def list_tasks(self, request: Request) -> Response:
        """Show all tasks, newest first, in pages of a hundred."""
        text = request.query_params.get("page", "1")
        number = int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 7 else 1
        number = max(1, number)
        counts = await run_in_threadpool(self.store.task_counts)
        tasks = await run_in_threadpool(self.store.tasks, TASKS_PER_PAGE, (number - 1) * TASKS_PER_PAGE)
        shown = {status: counts[status] for status in STATUS_ORDER if counts[status] or status in ALWAYS_COUNTED}
        last = max(1, -(-sum(counts.values()) // TASKS_PER_PAGE))
        return self.render(
            request, "tasks.html", tasks=tasks, counts=shown, page=number, last_page=last, refresh=REFRESH_SECONDS
        )

    async def to_tasks(self, _: Request) -> Response:
        """Lead to the list of tasks."""
        return RedirectResponse("/", 303)

    async def show_task(self, request: Request) -> Response:
        """Show one task: its history, results, configuration and files."""
        task = await self._task(request)
        results = await run_in_threadpool(self.store.results, task.id)
        history = await run_in_threadpool(self.store.history, task.id)
        networks = [result for result in results if result.type is FileType.ONNX]
        names = {result.file_name for result in networks}
        uses = Counter(result.file_name for result in results)
        return self.render(
            request,
            "task.html",
            task=task,
            history=history,
            images=[result for result in results if result.is_shown],
            networks=networks,
            missing_networks=[name for name in TARGET_NAMES if f"{name}.onnx" not in names],
            others=[result for result in results if not result.is_shown and result.type is not FileType.ONNX],
            shared_names={name: count for name, count in uses.items() if count > 1},
            fields={entry.key: entry for entry in DEPLOYED_FIELDS},
            refresh=None if task.status in FINISHED_STATUSES else REFRESH_SECONDS,
        )

    async def _task(self, request: Request) -> Task:
        number = number_in_path(request, "task_id", 404, "the task id")
        task = await run_in_threadpool(self.store.task, number)
        if task is None:
            raise HTTPException(404, f"there is no task {number}")
        return task

    async def withdraw_task(self, request: Request, _: list[tuple[str, str]]) -> Response:
        """Set a task that still waits to Failed, so that no machine gets it."""
        task = await self._task(request)
        if not await run_in_threadpool(self.store.set_status, task.id, TaskStatus.FAILED, "page", TaskStatus.QUEUED):
            raise HTTPException(409, f"task {task.id} is no longer queued")
        return RedirectResponse(f"/tasks/{task.id}", 303)

    async def copy_task(self, request: Request, _: list[tuple[str, str]]) -> Response:
        """Queue a new task with the same files and configuration."""
        task = await self._task(request)
        copy = await run_in_threadpool(self.store.queue_copy, task.id, "page")
        return RedirectResponse(f"/tasks/{copy}", 303)

    async def show_queue_form(self, request: Request) -> Response:
        """Show the form that queues a task."""
        return await self._queue_form(request, QueueForm.empty(), 200)

    async def queue_task(self, request: Request, fields: list[tuple[str, str]]) -> Response:
        """Queue a task, or show the form again with what is wrong."""
        form = QueueForm.read(fields)
        arguments = await run_in_threadpool(form.check, self._size_of)
        if arguments is None:
            return await self._queue_form(request, form, 422)
        task_id = await run_in_threadpool(lambda: self.store.queue_task(**arguments, source="page"))
        return RedirectResponse(f"/tasks/{task_id}", 303)

    async def _queue_form(self, request: Request, form: QueueForm, status: int) -> Response:
        on_grid = await run_in_threadpool(self.grid.logical_file_names, GRID_FILES_SHOWN) if self.grid else []
        return self.render(
            request, "queue.html", status, form=form, fields=DEPLOYED_FIELDS, prefix=PREFIX, grid_files=on_grid
        )

    def _size_of(self, lfn: str) -> int | None:
        return self.grid.size_of(lfn) if self.grid else None

    # Results

    async def send_file(self, request: Request) -> Response:
        """Send a result: images inline, a log as plain text on request, anything else as a download."""
        number = number_in_path(request, "result_id", 404, "the result id")
        result = await run_in_threadpool(self.store.result, number)
        if result is None:
            raise HTTPException(404, f"there is no result {number}")
        as_text = result.type is FileType.LOG and request.query_params.get("view") == "text"
        inline = result.is_shown or as_text
        media_type = "text/plain; charset=utf-8" if as_text else result.media_type
        return FileResponse(
            self.store.result_path(result),
            filename=result.file_name,
            media_type=media_type if inline else "application/octet-stream",
            content_disposition_type="inline" if inline else "attachment",
            headers={"Content-Security-Policy": FILE_POLICY, "Cache-Control": "private, max-age=3600"},
        )

    # Machines

    async def list_machines(self, request: Request) -> Response:
        """Show all machines and the form that registers one."""
        machines = await run_in_threadpool(self.store.machines)
        return self.render(request, "machines.html", machines=machines, error="", name="")

    async def register_machine(self, request: Request, fields: list[tuple[str, str]]) -> Response:
        """Register a machine and show its key, this once."""
        name = dict(fields).get("name", "")
        try:
            machine = await run_in_threadpool(self.store.register_machine, name)
        except SpecError as error:
            machines = await run_in_threadpool(self.store.machines)
            reason = f"{error.what}; {error.hint}"
            return self.render(request, "machines.html", 422, machines=machines, error=reason, name=name)
        base_url = f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"
        return self.render(request, "machine_key.html", 201, machine=machine, name=name, base_url=base_url)

    # Login

    async def show_login(self, request: Request) -> Response:
        """Show the form for the admin token."""
        self.access.check_host(request)
        return self.render(request, "login.html", error="")

    async def log_in(self, request: Request) -> Response:
        """Check the admin token and remember the browser."""
        fields = dict(await form_fields(request, self.settings.max_form_bytes))
        self.access.check_form(request, fields.get(CSRF_FIELD, ""))
        if not self.access.is_token(fields.get("token", "")):
            return self.render(request, "login.html", 401, error="This is not the admin token of this server.")
        response = RedirectResponse("/", 303)
        self.access.log_in(request, response)
        return response

    async def log_out(self, request: Request, _: list[tuple[str, str]]) -> Response:
        """Forget the browser's session."""
        response = RedirectResponse("/login", 303)
        self.access.log_out(request, response)
        return response
