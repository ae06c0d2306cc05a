"""Answers with what the environment, the files and the query say. Only what a minimal Python has."""

import os
import socket
import sys


def content(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        return "no file: %s" % error.strerror


def answer(target):
    path, _, query = target.partition("?")
    if path == "/env":
        return os.environ.get(query, "unset")
    if path == "/file":
        return content(query)
    return "%s from python %d.%d in %s" % (os.environ["GREETING"], *sys.version_info[:2], os.getcwd())


def main():
    listener = socket.create_server(("", int(os.environ["PORT"])))
    print("python listens", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            head = connection.makefile("rb")
            target = head.readline().decode().split(" ")[1:2]
            while head.readline().strip():
                pass
            if target:
                body = answer(target[0]).encode()
                head = "HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
                connection.sendall(head.encode() + body)


main()
