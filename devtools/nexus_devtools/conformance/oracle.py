"""nginx in front of a scripted backend, to be compared with: no buffering, short patience.

It promises a process of its own per case, so that no run sees another's connections. It is looked
for in PATH and /usr/sbin; without it there is no oracle, and whoever runs the cases says so.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from pathlib import Path

from nexus_devtools.rawhttp.peers import Peer, open_client

NGINX = """
{user}
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_max_body_size 1m;
  client_header_timeout 1s;
  client_body_timeout 1s;
  keepalive_timeout 1s;
  lingering_time 1s;
  lingering_timeout 300ms;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 1s;
      proxy_send_timeout 1s;
    }}
  }}
}}
"""
PATIENCE_SECONDS = 1.5


def find_nginx() -> str | None:
    """The nginx of this machine, if there is one."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Oracle:
    """A running nginx in front of the backend on port `backend`."""

    def __init__(self, nginx: str, folder: Path, backend: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        user = "user root;" if os.geteuid() == 0 else ""
        self._nginx = nginx
        self._folder = folder
        self._text = NGINX.format(folder=folder, port=self.port, backend=backend, user=user)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return once it listens. Raises RuntimeError."""
        config = self._folder / "nginx.conf"
        config.write_text(self._text)
        command = (self._nginx, "-c", str(config), "-p", str(self._folder))
        self._process = await asyncio.create_subprocess_exec(
            *command, stderr=asyncio.subprocess.DEVNULL
        )
        end = time.monotonic() + 5
        while not self._listens():
            if self._process.returncode is not None or time.monotonic() > end:
                raise RuntimeError(f"nginx did not start: see {self._folder}/error.log")
            await asyncio.sleep(0.005)

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    async def open(self) -> Peer:
        """A client's connection to it."""
        return await open_client(self.port)

    async def patience(self, _sent: int) -> None:
        """Wait until its timeouts have passed."""
        await asyncio.sleep(PATIENCE_SECONDS)

    async def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
