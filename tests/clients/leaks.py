"""Clients of Redis that leak, each in a way of its own, and some that only look as if they did."""
import asyncio
import os
import sys
import threading

import redis
import redis.asyncio
import redis.cluster
import redis.sentinel

# What a registry, a cache or a closure keeps alive in a program.
kept = []
over = threading.Event()


def until_over(step):
    while not over.wait(0.2):
        step()


def pool_per_request(host, port):
    def handle_request():
        pool = redis.ConnectionPool(host=host, port=port)
        kept.append(pool)
        redis.Redis(connection_pool=pool).ping()

    until_over(handle_request)


def asyncio_pool(host, port):
    async def run_job():
        client = redis.asyncio.Redis(host=host, port=port)
        kept.append(client)
        await client.ping()

    async def run_jobs():
        while not over.is_set():
            await run_job()
            await asyncio.sleep(0.2)

    asyncio.run(run_jobs())


def exception_path(host, port):
    pool = redis.ConnectionPool(host=host, port=port)

    def handle_order():
        connection = pool.get_connection()
        connection.send_command("PING")
        connection.read_response()
        raise ValueError("the order is empty")
        pool.release(connection)

    def serve():
        try:
            handle_order()
        except ValueError:
            pass

    until_over(serve)


def sentinel(host, port):
    def find_master():
        client = redis.sentinel.Sentinel([(host, port)])
        kept.append(client)
        client.discover_master("main")

    until_over(find_master)


def cluster(host, port):
    with redis.Redis(host=host, port=port) as admin:
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while "cluster_state:ok" not in str(admin.execute_command("CLUSTER", "INFO")):
            over.wait(0.05)

    def cluster_client():
        client = redis.cluster.RedisCluster(host=host, port=port)
        kept.append(client)
        client.get("order")

    until_over(cluster_client)


def close_wait(host, port):
    def open_some():
        for _ in range(5):
            kept.append(redis.Connection(host=host, port=port))
            kept[-1].connect()

    open_some()
    over.wait()


def reset(host, port):
    def open_some():
        for _ in range(5):
            kept.append(redis.Connection(host=host, port=port))
            kept[-1].connect()

    open_some()
    with redis.Redis(host=host, port=port) as admin:
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    over.wait(0.5)
    for connection in kept:
        # The server is gone: it answers with a reset, which nobody reads.
        connection._sock.send(b"PING\r\n")
    over.wait()


def warming_pool(host, port):
    def serve():
        if len(kept) < 20:
            connection = redis.Connection(host=host, port=port)
            connection.connect()
            kept.append(connection)
        for connection in kept:
            connection.send_command("PING")
            connection.read_response()

    until_over(serve)


def cron(host, port):
    def run_job():
        for _ in range(20):
            with redis.Redis(host=host, port=port) as client:
                client.ping()

    until_over(run_job)


def get_client(host, port):
    client = redis.Redis(host=host, port=port)
    client.ping()
    kept.append(client)
    return client


def exit_with(host, port, opened, closed, code):
    for client in [get_client(host, port) for _ in range(int(opened))][: int(closed)]:
        client.close()
    # As C's exit does, and unlike Python's: it closes nothing first.
    os._exit(int(code))


def outlive(host, port, opened):
    """A daemon: its parent ends, it stays with its connections."""
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    for _ in range(int(opened)):
        get_client(host, port)
    with open(os.environ["CONNLEAK_TEST_PIDFILE"], "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    over.wait()


def main():
    way, host, port, *rest = sys.argv[1:]
    if not rest:
        # It connects when it is told to, and ends with its stdin.
        print("ready", flush=True)
        sys.stdin.readline()
        threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    globals()[way](host, int(port), *rest)


main()
