#!/usr/bin/env python3
"""Records real remote_write and remote_read requests as fixtures.

    capture.py PROMETHEUS_3 PROMETHEUS_2 FOLDER

Starts both servers on loopback, lets them scrape a small page of this script, write to it and read
from it, and keeps one request of each kind: NAME.body as it was sent and NAME.headers. Takes about
half a minute. Nothing else on the machine is touched.
"""

import http.server
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

STALE = struct.pack("<Q", 0x7FF0000000000002)

# The page that is scraped; the series with mode="gone" ends after a few scrapes.
PAGE = """\
# HELP guest_cpu_seconds Time that a guest's cpus ran.
# TYPE guest_cpu_seconds counter
# UNIT guest_cpu_seconds seconds
guest_cpu_seconds_total{{domain="instance-00000001",mode="user"}} {counter} # {{trace_id="4bf92f35"}} 0.5 {now}
guest_cpu_seconds_created{{domain="instance-00000001",mode="user"}} {created}
{gone}# HELP guest_memory_bytes Memory of a guest.
# TYPE guest_memory_bytes gauge
guest_memory_bytes{{domain="größer",note="a \\"quoted\\" word"}} NaN
guest_memory_bytes{{domain="instance-00000002",note=""}} 1.073741824e+09
# EOF
"""
GONE = """\
guest_cpu_seconds_total{{domain="instance-00000001",mode="gone"}} {counter}
guest_cpu_seconds_created{{domain="instance-00000001",mode="gone"}} {created}
"""
STARTED = time.time()

KEEP = "up|guest_.*|prometheus_http_request_duration_seconds.*"


def varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def decompress(body):
    """Snappy's block format."""
    length, at = varint(body, 0)
    out = bytearray()
    while at < len(body):
        tag = body[at]
        at += 1
        if tag & 3 == 0:
            size = tag >> 2
            if size >= 60:
                width = size - 59
                size = int.from_bytes(body[at : at + width], "little")
                at += width
            out += body[at : at + size + 1]
            at += size + 1
            continue
        if tag & 3 == 1:
            size, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | body[at]
            at += 1
        else:
            width = 2 if tag & 3 == 2 else 4
            size, offset = (tag >> 2) + 1, int.from_bytes(body[at : at + width], "little")
            at += width
        for _ in range(size):
            out.append(out[-offset])
    assert len(out) == length
    return bytes(out)


def fields(message):
    """Yields the number and the value of each field; all our messages use three wire types."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 0:
            value, at = varint(message, at)
        elif key & 7 == 1:
            value, at = message[at : at + 8], at + 8
        else:
            size, at = varint(message, at)
            value, at = message[at : at + size], at + size
        yield key >> 3, value


def series_with(message, series_tag, wanted_tag):
    """How many series of a request have such a field."""
    all_series = [value for tag, value in fields(message) if tag == series_tag]
    return sum(any(tag == wanted_tag for tag, _ in fields(one)) for one in all_series)


def has_start_time(message):
    for tag, one in fields(message):
        if tag == 5:
            for tag, sample in fields(one):
                if tag == 2 and any(tag == 3 for tag, _ in fields(sample)):
                    return True
    return False


# Which request of a path becomes which fixture: the first one that has what we want to have.
WANTED = [
    ("v2-from-3", "write-2.0-prometheus-3", has_start_time),
    ("v2-from-3", "write-2.0-stale", lambda m: STALE in m),
    ("v2-from-3", "write-2.0-histograms", lambda m: series_with(m, 5, 3) and series_with(m, 5, 4)),
    ("v1-from-3", "write-1.0-prometheus-3", lambda m: series_with(m, 1, 2) > 3),
    ("v1-from-3", "write-1.0-stale", lambda m: STALE in m),
    ("v1-from-3", "write-1.0-histograms", lambda m: series_with(m, 1, 4) and series_with(m, 1, 3)),
    ("v1-metadata-from-3", "write-1.0-metadata", lambda m: any(tag == 3 for tag, _ in fields(m))),
    ("v1-from-2", "write-1.0-prometheus-2", lambda m: series_with(m, 1, 2) > 3),
    ("read-from-3", "read-range-prometheus-3", lambda m: b"rate" in m),
    ("read-from-3", "read-series-prometheus-3", lambda m: b"series" in m),
    ("read-from-2", "read-range-prometheus-2", lambda m: b"rate" in m),
    ("read-from-2", "read-series-prometheus-2", lambda m: b"series" in m),
]


class Recorder(http.server.BaseHTTPRequestHandler):
    folder = None
    missing = list(WANTED)
    scrapes = 0
    lock = threading.Lock()

    def do_GET(self):
        Recorder.scrapes += 1
        values = {"counter": Recorder.scrapes, "created": f"{STARTED:.3f}", "now": f"{time.time():.3f}"}
        gone = GONE.format(**values) if time.time() < STARTED + 8 else ""
        page = PAGE.format(gone=gone, **values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.strip("/")
        message = decompress(body)
        with Recorder.lock:
            for entry in list(Recorder.missing):
                if entry[0] == path and entry[2](message):
                    Recorder.missing.remove(entry)
                    self.keep(entry[1], body)
                    break
        # A refused read is a warning to the reader, so that its query still ends.
        self.send_response(400 if path.startswith("read") else 204)
        self.end_headers()

    def keep(self, name, body):
        with open(os.path.join(Recorder.folder, name + ".body"), "wb") as file:
            file.write(body)
        with open(os.path.join(Recorder.folder, name + ".headers"), "w") as file:
            for key, value in self.headers.items():
                # The rest would differ with every recording.
                if key not in ("Host", "Content-Length", "Traceparent"):
                    file.write(f"{key}: {value}\n")

    def log_message(self, *arguments):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def config(recorder, own, version):
    base = f"http://127.0.0.1:{recorder}"
    keep = [{"source_labels": ["__name__"], "regex": KEEP, "action": "keep"}]
    nothing = [{"source_labels": ["__name__"], "regex": ".*", "action": "drop"}]
    queue = {"batch_send_deadline": "1s", "min_shards": 1, "max_shards": 1}
    v1 = {
        "url": f"{base}/v1-from-{version}",
        "send_exemplars": True,
        "send_native_histograms": True,
        "write_relabel_configs": keep,
        "queue_config": queue,
        "metadata_config": {"send": False},
    }
    writes = [v1]
    jobs = [{"job_name": "page", "static_configs": [{"targets": [f"127.0.0.1:{recorder}"]}]}]
    if version == 3:
        v2 = dict(v1, url=f"{base}/v2-from-3", protobuf_message="io.prometheus.write.v2.Request")
        del v2["metadata_config"]
        metadata = {
            "url": f"{base}/v1-metadata-from-3",
            "write_relabel_configs": nothing,
            "metadata_config": {"send": True, "send_interval": "2s"},
        }
        writes += [v2, metadata]
        itself = {"job_name": "itself", "static_configs": [{"targets": [f"127.0.0.1:{own}"]}]}
        itself["scrape_native_histograms"] = True
        jobs.append(itself)
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": jobs,
        "remote_write": writes,
        "remote_read": [{"url": f"{base}/read-from-{version}", "read_recent": True}],
    }


def ask(own, path, **parameters):
    url = f"http://127.0.0.1:{own}/api/v1/{path}?" + urllib.parse.urlencode(parameters)
    try:
        urllib.request.urlopen(url, timeout=10).read()
    except OSError:
        pass  # Not up yet, or the refused read made the whole query fail: the request was sent.


def main():
    binaries, Recorder.folder = {3: sys.argv[1], 2: sys.argv[2]}, sys.argv[3]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    features = {3: "exemplar-storage,st-storage", 2: "exemplar-storage"}
    processes, ports = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for version, binary in binaries.items():
                own = ports[version] = free_port()
                file = os.path.join(scratch, f"{version}.yml")
                with open(file, "w") as out:
                    # JSON is YAML.
                    json.dump(config(server.server_port, own, version), out)
                log = open(os.path.join(scratch, f"{version}.log"), "w")
                arguments = [
                    binary,
                    f"--config.file={file}",
                    f"--storage.tsdb.path={scratch}/data-{version}",
                    f"--web.listen-address=127.0.0.1:{own}",
                    f"--enable-feature={features[version]}",
                ]
                processes.append(subprocess.Popen(arguments, stdout=log, stderr=log, cwd=scratch))
            deadline = time.time() + 60
            while Recorder.missing and time.time() < deadline:
                time.sleep(1)
                for own in ports.values():
                    query = 'sum by (domain) (rate(guest_cpu_seconds_total{mode!="x",domain=~"inst.*"}[1m]))'
                    ask(own, "query_range", query=query, start=time.time() - 300, end=time.time(), step=15)
                    ask(own, "series", **{"match[]": '{__name__=~"guest_.+",domain!~"a|b"}'})
            if Recorder.missing:
                for version in binaries:
                    sys.stderr.write(open(os.path.join(scratch, f"{version}.log")).read()[-3000:])
                sys.exit(f"not seen: {[name for _, name, _ in Recorder.missing]}")
        finally:
            for process in processes:
                process.terminate()
                process.wait()


main()
