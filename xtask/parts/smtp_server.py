"""A real SMTP server for the tests, on aiosmtpd: real TLS, real AUTH, real refusals.

The first line on standard output is `listening PORT`. Then follows one JSON object per line and received message:
    {"from": str, "to": [str], "data": str, "tls": bool, "auth": str}
where `data` is the message as it came (without the dots SMTP adds) and `auth` the user who signed in, or "".

The server ends by SIGTERM, or when standard input is a pipe and its other end closes: a server whose test has died
does not stay behind. (Standard input that is no pipe, such as /dev/null, is not watched.)
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import ssl
import stat
import sys
import warnings

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

# A hanging server has to outlast any client's patience.
IDLE_SECONDS = 3600


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="port on 127.0.0.1; 0 (default) takes a free one")
    add("--tls", choices=["none", "starttls", "implicit"], default="none")
    add("--require-tls", action="store_true", help="with starttls: answer 530 to mail before STARTTLS")
    add("--cert", help="certificate (PEM), for starttls and implicit")
    add("--key", help="its private key (PEM)")
    add("--user", help="require AUTH (PLAIN or LOGIN) as this user; needs --password")
    add("--password")
    add("--refuse-rcpt", action="append", default=[], metavar="ADDRESS", help="answer 550; repeatable")
    add("--greylist", type=int, default=0, metavar="N", help="answer 451 to the first N messages")
    add("--hang-after-data", action="store_true", help="take the message, print nothing, never answer")
    add(
        "--drop-after-data",
        action="store_true",
        help="take the message and print it, then close the connection in place of the 250",
    )
    options = parser.parse_args()
    if options.tls != "none" and not (options.cert and options.key):
        parser.error(f"--tls {options.tls} needs --cert and --key")
    if options.require_tls and options.tls == "none":
        parser.error("--require-tls needs --tls starttls or implicit")
    if bool(options.user) != bool(options.password):
        parser.error("--user and --password come together")
    return options


class Handler:
    """Decides about recipients and messages; aiosmtpd speaks the protocol."""

    def __init__(self, options):
        self.refused = {address.lower() for address in options.refuse_rcpt}
        self.greylisted = options.greylist
        self.hang = options.hang_after_data
        self.drop = options.drop_after_data

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        # Without --user no mechanism is left, and aiosmtpd would offer an empty list of them.
        return [line for line in responses if line.strip() != "250-AUTH"]

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.lower() in self.refused:
            return "550 5.1.1 No such mailbox here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.greylisted > 0:
            self.greylisted -= 1
            return "451 4.7.1 Greylisted, try again later"
        if self.hang:
            await forever()
        report(server, session, envelope)
        if self.drop:
            server.transport.abort()
            await forever()
        return "250 2.0.0 OK"


async def forever():
    """Waits until aiosmtpd cancels us, which it does when the connection is gone."""
    await asyncio.Event().wait()


def report(server, session, envelope):
    message = {
        "from": envelope.mail_from or "",
        "to": envelope.rcpt_tos,
        "data": envelope.content.decode("utf-8", "replace"),
        "tls": server.transport.get_extra_info("ssl_object") is not None,
        "auth": session.auth_data.login.decode() if session.authenticated else "",
    }
    print(json.dumps(message), flush=True)


def authenticator(options):
    expected = LoginPassword(options.user.encode(), options.password.encode())

    def check(server, session, envelope, mechanism, given):
        # `handled=False` lets aiosmtpd send the 535.
        return AuthResult(success=given == expected, handled=False, auth_data=given)

    return check


def protocol(options, handler, tls):
    """Makes one connection's protocol."""
    extra = {}
    if options.user:
        extra = {"auth_required": True, "authenticator": authenticator(options)}
    else:
        extra = {"auth_exclude_mechanism": ["LOGIN", "PLAIN"]}
    return SMTP(
        handler,
        hostname="localhost",
        enable_SMTPUTF8=True,
        tls_context=tls if options.tls == "starttls" else None,
        require_starttls=options.tls == "starttls" and options.require_tls,
        # aiosmtpd looks for STARTTLS only, so with implicit TLS it must not ask.
        auth_require_tls=options.tls == "starttls",
        timeout=IDLE_SECONDS,
        loop=asyncio.get_running_loop(),
        **extra,
    )


async def end_of_parent(finished):
    """Finishes when the pipe on standard input closes; does nothing when it is no pipe."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass
    finished.set()


async def serve(options):
    loop = asyncio.get_running_loop()
    finished = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, finished.set)
    tls = None
    if options.tls != "none":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.cert, options.key)
    handler = Handler(options)
    server = await loop.create_server(
        lambda: protocol(options, handler, tls),
        host="127.0.0.1",
        port=options.port,
        ssl=tls if options.tls == "implicit" else None,
    )
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    watcher = asyncio.create_task(end_of_parent(finished))
    await finished.wait()
    watcher.cancel()
    server.close()


if __name__ == "__main__":
    # AUTH without TLS is one of the things the tests are about; aiosmtpd warns of it, once here and once in its log.
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="aiosmtpd")
    warnings.filterwarnings("ignore", message="Requiring AUTH while not requiring TLS")
    asyncio.run(serve(arguments()))
