"""Runs php-fpm with one worker, and has it run a script.

arguments: script host port orders. Says `up`, waits for a line, and says `ready PID` of the
worker.
"""
import ctypes
import glob
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

BEGIN, END, PARAMS, STDIN, STDOUT, STDERR = 1, 3, 4, 5, 6, 7
RESPONDER = struct.pack("!HB5x", 1, 0)


def record(kind, content):
    return struct.pack("!BBHHBx", 1, kind, 1, len(content), 0) + content


def param(name, value):
    name, value = name.encode(), value.encode()
    return struct.pack("!II", len(name) | 1 << 31, len(value) | 1 << 31) + name + value


def requested(path, script, query):
    """The body of one request's answer."""
    params = param("SCRIPT_FILENAME", script) + param("QUERY_STRING", query)
    params += param("REQUEST_METHOD", "GET")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(record(BEGIN, RESPONDER) + record(PARAMS, params))
        connection.sendall(record(PARAMS, b"") + record(STDIN, b""))
        answer, body = connection.makefile("rb"), b""
        while True:
            _, kind, _, length, padding, _ = struct.unpack("!BBHHBB", answer.read(8))
            content = answer.read(length + padding)[:length]
            if kind == STDOUT:
                body += content
            elif kind == STDERR:
                sys.stderr.buffer.write(content)
            elif kind == END:
                return body.split(b"\r\n\r\n", 1)[1].decode()


def end_with_us():
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main():
    script, host, port, orders = sys.argv[1:5]
    [program, *_] = sorted(glob.glob("/usr/sbin/php-fpm*"), reverse=True)
    with tempfile.TemporaryDirectory() as folder:
        path, config = os.path.join(folder, "socket"), os.path.join(folder, "fpm.conf")
        with open(config, "w") as file:
            file.write("[global]\nerror_log = /proc/self/fd/2\nlog_level = error\n[www]\n")
            file.write(f"listen = {path}\npm = static\npm.max_children = 1\n")
            file.write("user = root\n")
        options = ["--nodaemonize", "--allow-to-run-as-root", "--fpm-config", config]
        fpm = subprocess.Popen([program, *options], preexec_fn=end_with_us)
        try:
            while not os.path.exists(path) and fpm.poll() is None:
                time.sleep(0.01)
            print("up", flush=True)
            sys.stdin.readline()
            worker = requested(path, script, f"{host} {port} {orders}")
            print("ready", worker, flush=True)
            sys.stdin.read()
        finally:
            fpm.terminate()
            fpm.wait()


main()
