"""The few options of the curl program that the tests use, on libcurl itself (pycurl's wheel)."""

import argparse
import sys
from pathlib import Path

import pycurl

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--header", action="append", default=[])
parser.add_argument("--data-binary")
parser.add_argument("--http1.0", action="store_true", dest="http10")
parser.add_argument("--dump-header", required=True)
options = parser.parse_args()

handle = pycurl.Curl()
handle.setopt(pycurl.URL, options.url)
handle.setopt(pycurl.NOPROXY, "*")
handle.setopt(pycurl.TIMEOUT, 60)
handle.setopt(pycurl.HTTPHEADER, options.header)
if options.http10:
    handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_0)
if options.data_binary:
    handle.setopt(pycurl.POSTFIELDS, Path(options.data_binary.removeprefix("@")).read_bytes())
with Path(options.dump_header).open("wb") as head:
    handle.setopt(pycurl.HEADERFUNCTION, head.write)
    handle.setopt(pycurl.WRITEFUNCTION, sys.stdout.buffer.write)
    handle.perform()
handle.close()
