"""Leaks connections through main -> handle_order -> get_client -> celery: a connection for each task."""
import sys
import celery

kept = []


def get_client(app):
    client = app.connection_for_write()
    app.send_task("orders.handle", connection=client)
    return client


def handle_order(app):
    client = get_client(app)
    kept.append(client)


def main():
    host, port, orders = sys.argv[1], *map(int, sys.argv[2:4])
    app = celery.Celery("orders", broker=f"redis://{host}:{port}")
    print("up", flush=True)
    sys.stdin.readline()
    for _ in range(orders):
        handle_order(app)
    print("ready", flush=True)
    sys.stdin.read()


main()
