#!/usr/bin/env python3
"""The other end of the peers' agents: takes what collectd sends, asks node_exporter and the Zabbix agent every
ten seconds. Writes bytes (both ways, payload of UDP or TCP) and answers of each to standard output when stopped.

    footprint_peers.py COLLECTD_PORT EXPORTER_PORT ZABBIX_PORT
"""

import json
import signal
import socket
import struct
import sys
import threading

INTERVAL_S = 10
# What a small template asks of a Linux server.
KEYS = [
    "agent.ping", "system.uptime", "system.cpu.load[all,avg1]", "system.cpu.load[all,avg5]",
    "system.cpu.load[all,avg15]", "system.cpu.num", "vm.memory.size[available]", "vm.memory.size[total]",
    "vm.memory.size[pavailable]", "system.swap.size[,total]", "system.swap.size[,pfree]", "system.cpu.switches",
    "system.cpu.intr", "proc.num[,,run]", "proc.num", "vfs.fs.size[/,used]", "vfs.fs.size[/,total]",
    "vfs.fs.size[/,pused]", "vfs.fs.inode[/,pfree]", "kernel.maxfiles", "kernel.maxproc", "system.localtime",
] + [f"system.cpu.util[,{mode}]" for mode in
     ("user", "system", "nice", "iowait", "idle", "interrupt", "softirq", "steal")]

stop = threading.Event()
counts = {name: {"bytes": 0, "cycles": 0, "values": 0} for name in ("collectd", "exporter", "zabbix")}


def collectd(port):
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", port))
    sink.settimeout(0.5)
    while not stop.is_set():
        try:
            counts["collectd"]["bytes"] += len(sink.recv(65536))
        except TimeoutError:
            pass


def exchange(port, request):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def exporter(port):
    request = (f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept-Encoding: gzip\r\n"
               "Connection: close\r\n\r\n").encode()
    return len(request) + len(exchange(port, request)), 0


def zabbix(port):
    size = values = 0
    for key in KEYS:
        body = key.encode()
        request = b"ZBXD\x01" + struct.pack("<Q", len(body)) + body
        answer = exchange(port, request)
        size += len(request) + len(answer)
        values += b"ZBX_NOTSUPPORTED" not in answer
    return size, values


def poll(name, port, ask):
    while not stop.is_set():
        try:
            size, values = ask(port)
            counts[name]["bytes"] += size
            counts[name]["values"] = values
            counts[name]["cycles"] += 1
        except OSError as error:
            print(f"{name}: {error}", file=sys.stderr)
        stop.wait(INTERVAL_S)


def main():
    ports = [int(port) for port in sys.argv[1:4]]
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threads = [threading.Thread(target=collectd, args=(ports[0],)),
               threading.Thread(target=poll, args=("exporter", ports[1], exporter)),
               threading.Thread(target=poll, args=("zabbix", ports[2], zabbix))]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join()
    json.dump(counts, sys.stdout)


main()
