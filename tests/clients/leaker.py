"""The demo's leak in Python: handle_order() takes a connection and forgets to give it back."""
import select
import socket
import sys

ORDER_EVERY_S = 0.2
forgotten = []


def get_client(port):
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def handle_order(port, order):
    connection = get_client(port)
    connection.sendall(b"INCR orders\r\n")
    connection.recv(64)
    if order % 3:
        # The leak: nobody uses the connection any more, and it stays open.
        forgotten.append(connection)
    else:
        connection.close()


def main():
    port, order = int(sys.argv[1]), 0
    # It ends with its stdin.
    while not select.select([sys.stdin], [], [], ORDER_EVERY_S)[0]:
        order += 1
        handle_order(port, order)


main()
