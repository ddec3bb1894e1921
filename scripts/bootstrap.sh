#!/usr/bin/env bash
# Sourced by law's job script on a worker before the task runs: environment, and whether this worker can do the job.
# Placeholders are filled in for each submission. A line "pidml: …" is what the submitter's summary shows.

_pidml_bootstrap() {
    eval "$(echo "{{pidml_environment}}" | base64 --decode)"
    eval "$(echo "{{pidml_setup}}" | base64 --decode)" || {
        echo "pidml: the commands of \`setup\` in the profile failed on $(hostname)" >&2
        return 1
    }
    local python="{{pidml_python}}"
    if [ ! -r "${PIDML_STORE}/{{pidml_marker}}" ]; then
        echo "pidml: $(hostname) does not see the store ${PIDML_STORE}: it must be on a shared file system" >&2
        return 2
    fi
    if [ ! -x "${python}" ]; then
        echo "pidml: $(hostname) has no ${python}: the Python environment must be on a shared file system" >&2
        return 3
    fi
    export HOME="${HOME:-${LAW_JOB_HOME}}"
    export LAW_HOME="${LAW_JOB_HOME}/.law"
    export PATH="$(dirname "${python}"):${PATH}"
    export PYTHONPATH="{{pidml_root}}${PYTHONPATH:+:${PYTHONPATH}}"
    "${python}" - <<'CHECK' || return 4
import importlib.util
import platform
import sys

wanted = "{{pidml_version}}"
if platform.python_version() != wanted:
    sys.exit(f"pidml: {platform.node()} runs Python {platform.python_version()}, jobs were submitted with {wanted}")
absent = [name for name in "{{pidml_modules}}".split(",") if name and importlib.util.find_spec(name) is None]
if absent:
    sys.exit(f"pidml: {platform.node()}: Python packages are missing: {', '.join(absent)}")
CHECK
}

_pidml_bootstrap
