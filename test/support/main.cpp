// Runs the tests; ignores SIGPIPE as PostgreSQL's workers do.

#include <gtest/gtest.h>

#include <csignal>

int main(int argc, char **argv) {
	std::signal(SIGPIPE, SIG_IGN);
	testing::InitGoogleTest(&argc, argv);
	return RUN_ALL_TESTS();
}
