"""E-mail by SMTP. The Message-ID follows from the key, so a mail that went out twice is one to servers and programs that look."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, parseaddr

import httpx

from orderstream.actions.receivers import Smtp
from orderstream.actions.senders import Message, Refused, Transient


async def smtp(client: httpx.AsyncClient, gateway: Smtp, message: Message) -> str:
    """Its receipt is the Message-ID."""
    del client
    # the library of Python is a blocking one; its own time-out ends the thread where ours gave up
    return await asyncio.to_thread(_deliver, gateway, message)


def compose(gateway: Smtp, message: Message) -> EmailMessage:
    """The mail."""
    mail = EmailMessage()
    name, address = parseaddr(gateway.sender)
    domain = address.rpartition("@")[2] or "localhost"
    mail["From"] = Address(name, addr_spec=address)
    mail["To"] = message.to
    mail["Subject"] = " ".join(message.title.split())
    mail["Date"] = formatdate(usegmt=True)
    mail["Message-ID"] = f"<{message.key}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n\n".join(["\n".join(message.lines), *(f"{label}\n{url}" for label, url in message.links)]) + "\n")
    return mail


def _deliver(gateway: Smtp, message: Message) -> str:
    mail = compose(gateway, message)
    context = ssl.create_default_context()
    # else the library asks the DNS who we are, which may take longer than the mail
    us = mail["Message-ID"].strip("<>").rpartition("@")[2]
    try:
        connection: smtplib.SMTP
        if gateway.tls == "implicit":
            connection = smtplib.SMTP_SSL(gateway.host, gateway.port, us, timeout=gateway.timeout, context=context)
        else:
            connection = smtplib.SMTP(gateway.host, gateway.port, us, timeout=gateway.timeout)
        with connection:
            if gateway.tls == "starttls":
                connection.starttls(context=context)
            if gateway.user is not None:
                connection.login(gateway.user, gateway.password or "")
            connection.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        raise _said(next(iter(error.recipients.values()))[0]) from None
    except smtplib.SMTPResponseException as error:
        raise _said(error.smtp_code) from None
    except smtplib.SMTPNotSupportedError:
        raise Refused("smtp-unsupported") from None
    except ssl.SSLCertVerificationError:
        raise Refused("smtp-certificate") from None
    except (smtplib.SMTPException, OSError) as error:
        raise Transient(f"smtp-{type(error).__name__}") from None
    return str(mail["Message-ID"])


def _said(code: int) -> Transient | Refused:
    return Transient(f"smtp-{code}") if 400 <= code < 500 else Refused(f"smtp-{code}")
