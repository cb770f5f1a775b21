"""Takes spans by OTLP, over gRPC and over HTTP, with OpenTelemetry's own messages.

python3 receiver.py ADDRESSES SPANS UNAVAILABLE [CERTIFICATE KEY]

Writes where it listens to the file ADDRESSES, as JSON, and every span to the file SPANS, as one line of JSON. The first UNAVAILABLE
batches are turned away, to be sent again. With a certificate, it speaks TLS.
"""

import gzip
import json
import os
import ssl
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc
from opentelemetry.proto.trace.v1 import trace_pb2 as trace

addresses, spans = sys.argv[1], open(sys.argv[2], "a", encoding="utf-8")
unavailable = int(sys.argv[3])
certificate = sys.argv[4:6]
lock = threading.Lock()


def plain(attributes):
    values = {}
    for attribute in attributes:
        assert attribute.key not in values, f"{attribute.key} twice"
        values[attribute.key] = getattr(attribute.value, attribute.value.WhichOneof("value"))
    return values


def lines(request, via, fields):
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                assert len(span.trace_id) == 16 and len(span.span_id) == 8 and len(span.parent_span_id) in (0, 8)
                yield {
                    "via": via,
                    "fields": fields,
                    "resource": plain(of_resource.resource.attributes),
                    "scope": of_scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "state": span.trace_state,
                    "flags": span.flags,
                    "name": span.name,
                    "kind": trace.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "attributes": plain(span.attributes),
                    "events": [
                        {"at": event.time_unix_nano, "name": event.name, "attributes": plain(event.attributes)}
                        for event in span.events
                    ],
                    "status": trace.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
                }


def take(request, via, fields):
    """Whether it was taken."""
    global unavailable
    with lock:
        if unavailable > 0:
            unavailable -= 1
            return False
        spans.writelines(json.dumps(line) + "\n" for line in lines(request, via, fields))
        spans.flush()
        return True


class OverGrpc(service_grpc.TraceServiceServicer):
    def Export(self, request, context):
        if not take(request, "grpc", dict(context.invocation_metadata())):
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        return service.ExportTraceServiceResponse()


class OverHttp(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            return self.answer(404, b"")
        fields = {name.lower(): value for name, value in self.headers.items()}
        if not take(service.ExportTraceServiceRequest.FromString(body), "http", fields):
            return self.answer(503, b"")
        self.answer(200, service.ExportTraceServiceResponse().SerializeToString())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


grpc_server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
service_grpc.add_TraceServiceServicer_to_server(OverGrpc(), grpc_server)
http_server = ThreadingHTTPServer(("127.0.0.1", 0), OverHttp)
if certificate:
    chain, key = (open(file, "rb").read() for file in certificate)
    grpc_port = grpc_server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    http_server.socket = tls.wrap_socket(http_server.socket, server_side=True)
else:
    grpc_port = grpc_server.add_insecure_port("127.0.0.1:0")
grpc_server.start()
with open(addresses + ".new", "w", encoding="utf-8") as file:
    json.dump({"grpc": f"127.0.0.1:{grpc_port}", "http": f"127.0.0.1:{http_server.server_port}"}, file)
os.rename(addresses + ".new", addresses)
http_server.serve_forever()
