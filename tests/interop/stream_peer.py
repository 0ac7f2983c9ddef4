"""A gRPC server in Python that ends no stream, with grpcio's rules for PINGs.

Serves every method as a stream of one empty message; prints its port, and ends with its input. An
argument is the shortest time between two PINGs without data that it allows, in milliseconds; without
it grpcio's default holds.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc


class Endless(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_stream_rpc_method_handler(endless)


def endless(request, context):
    yield b""
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()


def main():
    options = [
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(milliseconds))
        for milliseconds in sys.argv[1:]
    ]
    server = grpc.server(ThreadPoolExecutor(max_workers=32), options=options)
    server.add_generic_rpc_handlers((Endless(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


main()
