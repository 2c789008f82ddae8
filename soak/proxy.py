#!/usr/bin/python3
"""A TCP proxy before a Redis, told by lines on its standard input how to mistreat its connections.

	pass           carry everything
	stall          take connections, carry nothing
	refuse         carry nothing new: close what connects
	cut            close every connection
	half-open      forget the server's half of every connection and leave the client's open
	slow BYTES     carry that many bytes a second
	garble         put something else in the place of an answer now and then, and nothing after it
	flood          the same with a string that does not end
	target PATH... the unix socket of the Redis from now on; of several, each connection gets the next
Each is answered by "ok".
"""

import os
import random
import selectors
import socket
import sys
import time

CHUNK = 1 << 16
BUFFER = 1 << 20				# bytes waiting for a side before the other one is read no more
TICK = 0.05
GARBLED = 0.05				# of the answers
GARBAGE = (b"!!!garbage\r\n", b"*2147483647\r\n", b"$500000000000\r\nabc", b"*1\r\n" * 64, b"$-2\r\n", b"$12x\r\n", b"*-1\r\n",
		   b"%1\r\n+a\r\n+b\r\n", b">2\r\n+message\r\n+a\r\n", b"$-1\r\n", b"*0\r\n", b":-5\r\n", b"+what\r\n", b"\0\xff\0",
		   b"-LOADING no\r\n", b"-NOPERM no\r\n", b"-MOVED 1 127.0.0.1:1\r\n", b"-\xff\xfe" + b"x" * 100_000 + b"\r\n")
ENDLESS = b"$1000000000000\r\n"


class Half:
	"""One end of a connection and what is on its way to it."""

	def __init__(self, sock):
		self.sock = sock
		self.waiting = bytearray()
		self.peer = None
		self.is_garbled = False
		self.is_flooded = False
		sock.setblocking(False)


class Proxy:
	def __init__(self):
		self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
		self.listener.setblocking(False)
		self.halves = {}
		self.targets = []
		self.mode = "pass"
		self.rate = 0
		self.allowance = 0.0

	def command(self, line):
		word, _, argument = line.partition(" ")
		if word == "target":
			self.targets = argument.split()
		elif word == "slow":
			self.mode, self.rate, self.allowance = "slow", int(argument), 0.0
		elif word == "cut":
			self.close_all(lambda half: True)
		elif word == "half-open":
			self.close_all(lambda half: half.is_server)
		else:
			self.mode = word

	def close_all(self, wanted):
		for half in list(self.halves.values()):
			if wanted(half):
				self.forget(half)

	def forget(self, half):
		if self.halves.pop(half.sock.fileno(), None):
			half.sock.close()
		if half.peer:
			half.peer.peer = None
			half.peer = None

	def accept(self):
		try:
			client, _ = self.listener.accept()
		except OSError:
			return
		if self.mode == "refuse":
			client.close()
			return
		server = socket.socket(socket.AF_UNIX)
		try:
			self.targets.append(self.targets.pop(0))
			server.connect(self.targets[-1])
		except OSError:
			client.close()
			server.close()
			return
		client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		ends = Half(client), Half(server)
		for half, peer, is_server in (*ends, False), (*ends[::-1], True):
			half.peer, half.is_server = peer, is_server
			self.halves[half.sock.fileno()] = half

	def end(self, half):
		"""One end has closed: the other one is closed when it has got what was on its way."""
		peer = half.peer
		self.forget(half)
		if peer:
			self.write(peer)
			self.forget(peer)

	def read(self, half):
		try:
			data = half.sock.recv(self.budget())
		except BlockingIOError:
			return
		except OSError:
			data = b""
		if not data:
			self.end(half)
		elif half.peer:			# the client of a half-open connection talks to nobody
			self.allowance -= len(data)
			half.peer.waiting += self.garble(half, data)
			self.write(half.peer)

	def garble(self, half, data):
		if half.is_garbled:
			return b""
		if not half.is_server or self.mode not in ("garble", "flood") or random.random() > GARBLED:
			return data
		half.is_garbled = True
		half.peer.is_flooded = self.mode == "flood"
		return ENDLESS if half.peer.is_flooded else random.choice(GARBAGE)

	def write(self, half):
		if half.is_flooded and len(half.waiting) < BUFFER:
			half.waiting += bytes(BUFFER)
		try:
			while half.waiting:
				del half.waiting[:half.sock.send(half.waiting[:CHUNK])]
		except BlockingIOError:
			pass
		except OSError:
			self.end(half)

	def budget(self):
		return CHUNK if self.mode != "slow" else max(1, min(CHUNK, int(self.allowance)))

	def interest(self, half):
		events = 0
		carrying = self.mode in ("pass", "refuse", "garble", "flood") or (self.mode == "slow" and self.allowance >= 1)
		if carrying and (not half.peer or len(half.peer.waiting) < BUFFER):
			events |= selectors.EVENT_READ
		if half.waiting and self.mode != "stall":
			events |= selectors.EVENT_WRITE
		return events

	def turn(self):
		"""Wait for something and do it. False once the input has ended."""
		selector = selectors.PollSelector()
		selector.register(sys.stdin, selectors.EVENT_READ)
		selector.register(self.listener, selectors.EVENT_READ)
		for descriptor, half in self.halves.items():
			events = self.interest(half)
			if events:
				selector.register(descriptor, events)
		started = time.monotonic()
		ready = selector.select(TICK)
		if self.mode == "slow":
			earned = (time.monotonic() - started) * self.rate
			self.allowance = min(self.allowance + earned, self.rate * TICK * 4)
		for key, events in ready:
			if key.fileobj is sys.stdin:
				lines = os.read(0, 4096).decode()
				if not lines:
					return False
				for line in lines.splitlines():
					self.command(line)
					print("ok", flush=True)
			elif key.fileobj is self.listener:
				self.accept()
			elif key.fd in self.halves:
				half = self.halves[key.fd]
				if events & selectors.EVENT_WRITE:
					self.write(half)
				if events & selectors.EVENT_READ and self.halves.get(key.fd) is half:
					self.read(half)
		return True


def main():
	proxy = Proxy()
	print(proxy.listener.getsockname()[1], flush=True)
	while proxy.turn():
		pass


if __name__ == "__main__":
	main()
