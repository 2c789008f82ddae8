// The scripted Redis.

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <stdexcept>

#include "support/fake_server.h"

namespace session_store::test {

namespace {

// Takes one complete command off the front of the buffer.
std::optional<std::vector<std::string>> take_command(std::string &buffer) {
	std::size_t at = 0;
	const auto number = [&](char type) -> std::optional<std::size_t> {
		const std::size_t end = buffer.find("\r\n", at);
		if (end == std::string::npos)
			return std::nullopt;
		if (buffer[at] != type)
			throw std::runtime_error("the client does not speak RESP");
		const std::size_t value = std::stoul(buffer.substr(at + 1, end - at - 1));
		at = end + 2;
		return value;
	};
	const auto count = number('*');
	if (!count)
		return std::nullopt;
	std::vector<std::string> command;
	for (std::size_t i = 0; i < *count; i++) {
		const auto length = number('$');
		if (!length || buffer.size() < at + *length + 2)
			return std::nullopt;
		command.push_back(buffer.substr(at, *length));
		at += *length + 2;
	}
	buffer.erase(0, at);
	return command;
}

std::string number(long long value) {
	return ":" + std::to_string(value) + "\r\n";
}

} // namespace

std::string bulk(const std::string &text) {
	return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

FakeServer::FakeServer() {
	std::string pattern =
		(std::filesystem::temp_directory_path() / "session_store.XXXXXX").string();
	if (mkdtemp(pattern.data()) == nullptr)
		throw std::runtime_error("cannot make a temporary directory");
	directory_ = pattern;
	listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	sockaddr_un address{};
	address.sun_family = AF_UNIX;
	std::strncpy(address.sun_path, endpoint().path.c_str(), sizeof(address.sun_path) - 1);
	if (bind(listener_, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0 ||
		listen(listener_, 16) != 0)
		throw std::runtime_error("cannot listen");
}

FakeServer::~FakeServer() {
	for (const Client &client : clients_)
		close(client.fd);
	close(listener_);
	std::error_code ignored;
	std::filesystem::remove_all(directory_, ignored);
}

redis::Endpoint FakeServer::endpoint() const {
	redis::Endpoint endpoint;
	endpoint.path = directory_ + "/fake.sock";
	endpoint.connect_timeout = std::chrono::milliseconds{50};
	endpoint.command_timeout = std::chrono::milliseconds{50};
	return endpoint;
}

redis::Wake FakeServer::wait(int fd, bool want_write, std::chrono::milliseconds timeout) noexcept {
	try {
		turn();
	} catch (...) {
		std::abort(); // the client sent what is no command
	}
	const auto short_wait = std::min(timeout, std::chrono::milliseconds{2});
	return PollWaiter::wait(fd, want_write, short_wait);
}

void FakeServer::script(const std::string &command, int n, Answer answer) {
	scripted_[{command, n}] = std::move(answer);
}

void FakeServer::push(const std::string &bytes) {
	for (Client &client : clients_)
		if (client.subscribed)
			client.out += bytes;
	turn();
}

void FakeServer::turn() {
	for (int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK); fd >= 0;
		 fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK))
		clients_.push_back(Client{fd, {}, {}, {}, false, false, false, 0});
	for (Client &client : clients_)
		serve(client);
	std::erase_if(clients_, [](const Client &client) { return client.fd < 0; });
}

void FakeServer::serve(Client &client) {
	char buffer[65536];
	ssize_t count = 0;
	while ((count = read(client.fd, buffer, sizeof(buffer))) > 0)
		client.in.append(buffer, static_cast<std::size_t>(count));
	bool gone = count == 0;
	while (!client.close) {
		const auto command = take_command(client.in);
		if (!command)
			break;
		handle(client, *command);
	}
	const std::size_t chunk = client.drip == 0 ? client.out.size() : client.drip;
	const ssize_t sent =
		send(client.fd, client.out.data(), std::min(chunk, client.out.size()), MSG_NOSIGNAL);
	if (sent > 0)
		client.out.erase(0, static_cast<std::size_t>(sent));
	gone = gone || (client.close && client.out.empty());
	if (gone) {
		close(client.fd);
		client.fd = -1;
	}
}

void FakeServer::handle(Client &client, const std::vector<std::string> &command) {
	std::string name = command[0];
	if (name == "CLIENT")
		name += " " + command[1];
	log.push_back(name);
	const auto scripted = scripted_.find({name, counts_[name]++});
	if (scripted != scripted_.end()) {
		client.multi = client.multi && name != "EXEC";
		client.out += scripted->second.bytes;
		client.close = scripted->second.close;
		client.drip = scripted->second.drip;
		return;
	}
	if (name == "MULTI") {
		client.multi = true;
		client.queued.clear();
		client.out += "+OK\r\n";
	} else if (name == "EXEC") {
		client.multi = false;
		client.out += "*" + std::to_string(client.queued.size()) + "\r\n";
		for (const auto &queued : client.queued)
			client.out += reply(client, queued);
	} else if (client.multi) {
		client.queued.push_back(command);
		client.out += "+QUEUED\r\n";
	} else {
		client.out += reply(client, command);
	}
}

std::string FakeServer::reply(Client &client, const std::vector<std::string> &command) {
	const std::string &name = command[0];
	const auto value = command.size() > 1 ? values.find(command[1]) : values.end();
	const bool known = value != values.end();
	if (name == "PING")
		return client.subscribed ? "*2\r\n" + bulk("pong") + bulk(command.at(1))
			: command.size() > 1 ? bulk(command[1])
								 : "+PONG\r\n";
	if (name == "INFO")
		return bulk(info);
	if (name == "CLIENT" && command[1] == "ID")
		return number(7);
	if (name == "CLIENT" && command[1] == "TRACKINGINFO")
		return "*6\r\n" + bulk("flags") + "*2\r\n" + bulk("on") + bulk("bcast") + bulk("redirect") +
			number(7) + bulk("prefixes") + "*0\r\n";
	if (name == "SUBSCRIBE" || name == "PSUBSCRIBE") {
		client.subscribed = true;
		return "*3\r\n" + bulk(name == "SUBSCRIBE" ? "subscribe" : "psubscribe") +
			bulk(command[1]) + number(1);
	}
	if (name == "CONFIG")
		return "*2\r\n" + bulk(command.at(2)) + bulk(announced);
	if (name == "GETRANGE")
		return bulk(known ? value->second.substr(0, std::stoul(command.at(3)) + 1) : "");
	if (name == "STRLEN")
		return number(known ? static_cast<long long>(value->second.size()) : 0);
	if (name == "PEXPIRETIME")
		return number(known ? -1 : -2);
	if (name == "TIME")
		return "*2\r\n" + bulk("1700000000") + bulk("0");
	if (name == "GET")
		return known ? bulk(value->second) : "$-1\r\n";
	if (name == "TYPE")
		return known ? "+string\r\n" : "+none\r\n";
	if (name == "MGET") {
		std::string out = "*" + std::to_string(command.size() - 1) + "\r\n";
		for (std::size_t i = 1; i < command.size(); i++) {
			const auto one = values.find(command[i]);
			out += one == values.end() ? "$-1\r\n" : bulk(one->second);
		}
		return out;
	}
	if (name == "SCAN") {
		std::string out = "*2\r\n" + bulk("0") + "*" + std::to_string(values.size()) + "\r\n";
		for (const auto &[key, ignored] : values)
			out += bulk(key);
		return out;
	}
	return "+OK\r\n";
}

} // namespace session_store::test
