"""Session payloads of a wanted size, as express-session writes them, and their sids."""

import json
import random

SID_TAIL = "kQ7xTzWc2Rf0aVb9LmYp3s"			# with the ten digits of a key: 32 characters
MISSING_TAIL = "kQ7xTzWc2Rf0aVb9LmYp3-"
KEY = "1000000000 + ({n} * 2654435761) % 4294967296"	# same in SQL and pgbench's \set

WORDS = ("oak desk lamp linen shirt blue large ceramic mug kettle walnut shelf winter jacket wool "
		 "socks running shoes garden chair folding table steel pan bread knife cotton sheet green "
		 "notebook paper travel adapter phone cover leather belt summer hat").split()


def key_of(n):
	"""The SQL or pgbench expression for the key of session number n: 1 to 1 and well scattered."""
	return KEY.format(n=n)


def sid_of(key, tail=SID_TAIL):
	"""The SQL expression of a sid from its key."""
	return f"({key}::text || '{tail}')"


def _item(source):
	return {
		"sku": f"{source.randrange(10**6):06d}",
		"title": " ".join(source.choice(WORDS) for _ in range(6)),
		"quantity": source.randrange(1, 5),
		"price": f"{source.randrange(500, 20000) / 100:.2f}",
		"addedAt": f"2026-11-{source.randrange(1, 28):02d}T{source.randrange(24):02d}:17:05.502Z",
	}


def build(size, counter=0):
	"""A payload of about size bytes; the counter is all that differs between two of one size."""
	source = random.Random(size)
	session = {
		"cookie": {"originalMaxAge": 86400000, "expires": "2026-11-23T11:06:36.502Z",
				   "httpOnly": True, "path": "/"},
		"passport": {"user": 48213},
		"csrfSecret": "".join(source.choice("abcdefghijklmnopqrstuvwxyz0123456789")
							  for _ in range(24)),
		"user": {"name": "Marta Lindqvist", "email": "marta.lindqvist@example.org",
				 "roles": ["member", "editor"]},
		"views": 100000000 + counter,
		"cart": [],
		"note": "",
	}

	def text():
		return json.dumps(session, separators=(",", ":"))

	item = _item(source)
	while len(text()) + len(json.dumps(item, separators=(",", ":"))) < size:
		session["cart"].append(item)
		item = _item(source)
	while len(text()) < size:
		session["note"] += source.choice(WORDS) + " "
	return text()
