"""A collector of traces, a process of its own: takes OTLP over HTTP and prints each span as a line of JSON."""

import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

WRITING = threading.Lock()  # requests come at the same time


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            self.send_error(404)
            return
        lines = [
            json.dumps({**plain(span), "resource": values(sent.resource.attributes), "headers": dict(self.headers)})
            + "\n"
            for sent in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope_spans in sent.scope_spans
            for span in scope_spans.spans
        ]
        with WRITING:
            print(*lines, sep="", end="", flush=True)  # noqa: T201
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def plain(span):
    return {
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "began": span.start_time_unix_nano,
        "ended": span.end_time_unix_nano,
        "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        "message": span.status.message,
        "attributes": values(span.attributes),
        "events": [event.name for event in span.events],
    }


def values(attributes):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector) as server:
    print(server.server_port, flush=True)  # noqa: T201
    server.serve_forever()
