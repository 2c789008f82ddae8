// Starting and stopping a redis-server.

#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "support/redis_server.h"

namespace session_store::test {

namespace {

constexpr std::chrono::seconds kStartTimeout{20};

} // namespace

RedisServer::RedisServer(std::vector<std::string> options) : options_(std::move(options)) {
	std::string pattern =
		(std::filesystem::temp_directory_path() / "session_store.XXXXXX").string();
	if (mkdtemp(pattern.data()) == nullptr)
		throw std::runtime_error("cannot make a temporary directory");
	directory_ = pattern;
	start();
}

RedisServer::~RedisServer() {
	stop();
	std::error_code ignored;
	std::filesystem::remove_all(directory_, ignored);
}

void RedisServer::start() {
	std::vector<std::string> arguments{"redis-server", "--port", "0", "--unixsocket",
		directory_ + "/redis.sock", "--dir", directory_, "--save", "", "--appendonly", "no",
		"--logfile", directory_ + "/redis.log"};
	arguments.insert(arguments.end(), options_.begin(), options_.end());
	std::vector<char *> argv;
	for (std::string &argument : arguments)
		argv.push_back(argument.data());
	argv.push_back(nullptr);
	pid_ = fork();
	if (pid_ == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); // it goes with a test that crashes
		execvp(argv[0], argv.data());
		_exit(127);
	}
	const auto deadline = std::chrono::steady_clock::now() + kStartTimeout;
	for (;;) {
		try {
			const redis::Connection probe(endpoint(), waiter_);
			return;
		} catch (const redis::Error &error) {
			if (error.kind() == redis::ErrorKind::auth)
				return; // it answers, and wants a password that the test knows
			if (std::chrono::steady_clock::now() > deadline) {
				stop();
				throw;
			}
			poll(nullptr, 0, 5);
		}
	}
}

void RedisServer::stop() {
	client_.reset();
	if (pid_ <= 0)
		return;
	kill(pid_, SIGKILL);
	waitpid(pid_, nullptr, 0);
	pid_ = -1;
}

redis::Endpoint RedisServer::endpoint() const {
	redis::Endpoint endpoint;
	endpoint.path = directory_ + "/redis.sock";
	return endpoint;
}

redis::Connection &RedisServer::client() {
	if (!client_ || !client_->alive())
		client_ = std::make_unique<redis::Connection>(endpoint(), waiter_);
	return *client_;
}

redis::ReplyPtr RedisServer::run(std::initializer_list<std::string_view> arguments) {
	return client().command(arguments);
}

int free_port() {
	const int fd = socket(AF_INET, SOCK_STREAM, 0);
	sockaddr_in address{};
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	socklen_t size = sizeof(address);
	const bool bound = bind(fd, reinterpret_cast<sockaddr *>(&address), size) == 0 &&
		getsockname(fd, reinterpret_cast<sockaddr *>(&address), &size) == 0;
	close(fd);
	if (!bound)
		throw std::runtime_error("no free port");
	return ntohs(address.sin_port);
}

} // namespace session_store::test
