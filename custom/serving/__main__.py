"""python -m custom.serving: the MONAI Label server, in the environment made by custom.serving.environment."""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from urllib.parse import urlsplit

import custom
from custom.errors import ConfigError, find_cause
from custom.files import written_whole
from custom.reading.limits import MAX_VOXELS, max_voxels
from custom.serving.guard import is_loopback
from custom.serving.label_settings import TOKEN, arguments, checked_studies


def main() -> None:
    """Checks the options, then serves until it is stopped."""
    options = arguments().parse_args()
    try:
        serve(options)
    except Exception as error:
        if cause := find_cause(error):
            sys.exit(f"brainmri label: {cause}")
        raise


def serve(options: argparse.Namespace) -> None:
    """Starts the server. Raises ConfigError for invalid options."""
    token = options.token or os.environ.get(TOKEN, "")
    check_address(options.host, options.port, token, options.public_url)
    given = f"{options.origins},{options.public_url}".split(",")
    origins = [origin.strip().rstrip("/") for origin in given if origin.strip()]
    for origin in origins:
        if urlsplit(origin).scheme not in ("http", "https") or urlsplit(origin).path:
            raise ConfigError(f"--origins and --public_url must be like http://viewer.example:3000, got {origin!r}.")
    studies = checked_studies(options.studies)
    listening = bound(options.host, options.port)
    app_dir = write_app(Path(options.runs).expanduser().absolute() / "label")
    if options.max_voxels is not None:
        os.environ[MAX_VOXELS] = str(options.max_voxels)
    max_voxels()  # refuses a number below 1
    names = ("bundles", "weights", "allow_simulated", "format", "store_to")
    conf = {name: str(getattr(options, name)) for name in names}
    settings = {
        "APP_DIR": str(app_dir),
        "STUDIES": studies.rstrip("/"),
        "APP_CONF": json.dumps(conf | {"runs": str(app_dir.parent)}),
        "SERVER_PORT": str(options.port),
        "SESSION_PATH": str(app_dir / "sessions"),
        "DATASTORE_AUTO_RELOAD": "false",
    }
    os.environ.update({f"MONAI_LABEL_{name}": value for name, value in settings.items()})
    shims = str(Path(__file__).parent / "shims")
    os.environ["PYTHONPATH"] = os.pathsep.join([shims, *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path.insert(0, shims)
    os.environ.pop(TOKEN, None)  # trainings are separate processes and need no token
    start_log(app_dir / "logs" / "app.log")

    import uvicorn
    from monailabel.interfaces.utils.app import app_instance

    from custom.serving.protocol import TimedProtocol, most_connections
    from custom.serving.server import create_app

    app_instance()  # reports problems with bundles or studies before the server listens
    print(f"http://{options.host}:{options.port}/ serves {studies}. {custom.RESEARCH_USE_ONLY}", flush=True)
    app = create_app(options.host, token, origins, options.largest_upload_mb * 2**20, options.public_url.rstrip("/"))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=TimedProtocol,
        limit_concurrency=most_connections(),
    )
    uvicorn.Server(config).run(sockets=[listening])


def check_address(host: str, port: int, token: str, public_url: str = "") -> None:
    """Raises ConfigError if others could use the server without a token, or for an invalid port."""
    if (public_url or not is_loopback(host)) and len(token) < 16:
        raise ConfigError(
            f"Others can reach {public_url or host}, so the server needs a token of at least 16 letters. Use --token "
            f"or the environment variable {TOKEN}."
        )
    if not all("!" <= letter <= "~" for letter in token):  # it becomes a header and a cookie
        raise ConfigError("The token may have letters, digits and signs of ASCII only, and no spaces. Use another one.")
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port must be from 1 to 65535, got {port!r}.")


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to this address. Raises ConfigError if the address is in use or does not exist."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for a restart right after a stop
        listening.bind(address)
    except OSError as error:
        raise ConfigError(f"Cannot listen on {host}:{port} ({error.strerror or error}). Use another --port.") from error
    return listening


def write_app(folder: Path) -> Path:
    """Makes the folder of MONAI Label's app: main.py, and space for logs and sessions."""
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        with written_whole(folder / "main.py") as partial:
            partial.write_text("from custom.serving.label_app import BrainMRIApp  # noqa: F401\n")
    except OSError as error:
        raise ConfigError(f"Cannot write to {folder} ({error}). Use another folder for --runs.") from error
    return folder


def start_log(file: Path) -> None:
    """Logs to the terminal and to a file of at most 10 MB, with three older files."""
    formatter = logging.Formatter("[%(asctime)s] [%(levelname)s] %(name)s: %(message)s")
    log_file = RotatingFileHandler(file, maxBytes=10 * 2**20, backupCount=3, encoding="utf-8")
    for handler in (logging.StreamHandler(), log_file):
        handler.setFormatter(formatter)
        logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)


if __name__ == "__main__":
    main()
