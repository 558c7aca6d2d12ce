"""Entry point of `nexus-proxy`: usage, logging and exit codes."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import uvloop

from nexus_api import pace
from nexus_proxy.allocator import keep_freed
from nexus_proxy.app import CannotListen, serve
from nexus_proxy.descriptors import take_all
from nexus_proxy.http.tls import UnusableFile
from nexus_proxy.kube.kubeconfig import ConfigError
from nexus_proxy.logs import configure
from nexus_proxy.settings import UsageError, parse

OK, FAILED, WRONG_USAGE = 0, 1, 2

_log = logging.getLogger("nexus.proxy")


def main() -> int:
    """Run the proxy; the return value is the exit code."""
    try:
        settings = parse(sys.argv[1:], os.environ)
        configure(log_format=settings.log_format, level=settings.log_level)
        if pace.PACE != 1:
            _log.warning("%s is set: this is a test, not a service", pace.VARIABLE)
        take_all()
        keep_freed()
        uvloop.run(serve(settings, os.environ, Path.home()))
    except (UsageError, UnusableFile) as error:
        sys.stderr.write(f"nexus-proxy: {error}\n")
        return WRONG_USAGE
    except (CannotListen, ConfigError) as error:
        sys.stderr.write(f"nexus-proxy: {error}\n")
        return FAILED
    except Exception:
        _log.exception("the proxy failed")
        return FAILED
    _log.info("stopped")
    return OK


if __name__ == "__main__":
    sys.exit(main())
