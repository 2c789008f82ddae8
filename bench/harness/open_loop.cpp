// An application of Redis that sends GETs at a fixed rate, whatever the answers do (open loop), and measures each from
// the time it was due: open_loop SOCKET RATE SECONDS CONNECTIONS KEYS prints "requests p50 p99 max" in microseconds.
// With RATE 0 it asks as fast as one request a connection allows, and prints "requests-per-second".
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Client {
	int socket;
	std::deque<Clock::time_point> due; // of what was sent and not answered
	std::string read;
};

int connect_to(const char *path) {
	const int result = socket(AF_UNIX, SOCK_STREAM, 0);
	sockaddr_un address{};
	address.sun_family = AF_UNIX;
	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	if (connect(result, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0) {
		perror(path);
		exit(1);
	}
	return result;
}

void send_get(Client *client, unsigned long key, Clock::time_point due) {
	char text[96];
	char command[160];
	const int length = snprintf(text, sizeof(text), "sess:%lu", key);
	const int total = snprintf(command, sizeof(command), "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", length, text);
	if (write(client->socket, command, static_cast<size_t>(total)) != total)
		exit(1);
	client->due.push_back(due);
}

// Takes one whole answer from what was read: $-1, or $N and its bytes. False when it is not all there.
bool take_answer(std::string *bytes) {
	const size_t line = bytes->find("\r\n");
	if (line == std::string::npos)
		return false;
	const long size = bytes->at(0) == '$' ? strtol(bytes->c_str() + 1, nullptr, 10) : -1;
	const size_t whole = line + 2 + (size < 0 ? 0 : static_cast<size_t>(size) + 2);
	if (bytes->size() < whole)
		return false;
	bytes->erase(0, whole);
	return true;
}

} // namespace

int main(int count, char **arguments) {
	if (count != 6)
		return 2;
	const double rate = atof(arguments[2]);
	const double seconds = atof(arguments[3]);
	const auto keys = strtoul(arguments[5], nullptr, 10);
	std::vector<Client> clients(strtoul(arguments[4], nullptr, 10));
	std::vector<pollfd> polls;
	for (Client &client : clients) {
		client.socket = connect_to(arguments[1]);
		polls.push_back({client.socket, POLLIN, 0});
	}
	std::mt19937_64 random(20261125);
	std::vector<double> times;
	const auto start = Clock::now();
	const auto end = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
	size_t sent = 0;
	size_t waiting = 0;
	while (Clock::now() < end || waiting > 0) {
		const auto now = Clock::now();
		if (now > end + std::chrono::seconds(10))
			return 1;
		for (size_t i = 0; rate == 0 && i < clients.size() && now < end; i++)
			if (clients[i].due.empty()) {
				send_get(&clients[i], random() % keys, now);
				waiting++;
			}
		auto next = now + std::chrono::milliseconds(10);
		while (rate > 0) {
			const auto due = start + std::chrono::duration_cast<Clock::duration>(
				std::chrono::duration<double>(static_cast<double>(sent) / rate));
			if (due >= end)
				break;
			if (due > now) {
				next = std::min(next, due);
				break;
			}
			send_get(&clients[sent++ % clients.size()], random() % keys, due);
			waiting++;
		}
		// The processor is left to those that are measured.
		const timespec pause{0, std::chrono::nanoseconds(next - now).count()};
		if (ppoll(polls.data(), polls.size(), &pause, nullptr) <= 0)
			continue;
		for (size_t i = 0; i < polls.size(); i++) {
			if ((polls[i].revents & POLLIN) == 0)
				continue;
			char buffer[65536];
			const ssize_t got = read(polls[i].fd, buffer, sizeof(buffer));
			if (got <= 0)
				return 1;
			clients[i].read.append(buffer, static_cast<size_t>(got));
			const auto answered = Clock::now();
			while (!clients[i].due.empty() && take_answer(&clients[i].read)) {
				times.push_back(std::chrono::duration<double, std::micro>(answered - clients[i].due.front()).count());
				clients[i].due.pop_front();
				waiting--;
			}
		}
	}
	if (times.empty())
		return 1;
	if (rate == 0) {
		printf("%.0f\n", static_cast<double>(times.size()) / seconds);
		return 0;
	}
	std::sort(times.begin(), times.end());
	const auto quantile = [&](double q) { return times[static_cast<size_t>(q * static_cast<double>(times.size() - 1))]; };
	printf("%zu %.0f %.0f %.0f\n", times.size(), quantile(0.5), quantile(0.99), times.back());
	return 0;
}
