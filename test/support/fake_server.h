// A scripted Redis on a unix socket, for answers that a real one never gives.
//
// It has no thread: its waiter lets it work whenever the code under test waits, so every run is the
// same. By default it behaves like a healthy Redis that holds the strings in `values`; a test
// replaces the answer to the n-th command of a name.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "redis/endpoint.h"
#include "support/poll_waiter.h"

namespace session_store::test {

struct Answer {
	std::string bytes;
	bool close = false;   // hang up afterwards
	std::size_t drip = 0; // bytes per turn; 0: all at once
};

class FakeServer : public PollWaiter {
public:
	FakeServer();
	~FakeServer() override;

	redis::Endpoint endpoint() const;
	redis::Wake wait(int fd, bool want_write, std::chrono::milliseconds timeout) noexcept override;

	// Answers the n-th command (from 0) of this name in this way instead.
	void script(const std::string &command, int n, Answer answer);
	// Sends bytes on the connection that subscribed.
	void push(const std::string &bytes);

	std::map<std::string, std::string> values;
	std::string announced;        // notify-keyspace-events
	std::vector<std::string> log; // names of the commands received
	std::string info = "redis_version:7.0.15\r\nrun_id:r1\r\nrole:master\r\nmaster_replid:m1\r\n"
					   "loading:0\r\nasync_loading:0\r\n";

private:
	struct Client {
		int fd;
		std::string in;
		std::string out;
		std::vector<std::vector<std::string>> queued;
		bool multi = false;
		bool subscribed = false;
		bool close = false;
		std::size_t drip = 0;
	};

	void turn();
	void serve(Client &client);
	void handle(Client &client, const std::vector<std::string> &command);
	std::string reply(Client &client, const std::vector<std::string> &command);

	std::string directory_;
	int listener_;
	std::vector<Client> clients_;
	std::map<std::pair<std::string, int>, Answer> scripted_;
	std::map<std::string, int> counts_;
};

std::string bulk(const std::string &text);

} // namespace session_store::test
