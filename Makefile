# PGXS build of session_store: the build that ships.
#   make && make install        WERROR=1 turns warnings into errors
#   make installcheck           regress, isolation and TAP, each with servers of its own
EXTENSION = session_store
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" session_store.control)
MODULE_big = session_store

SOURCES = $(sort $(wildcard src/*.cpp src/*/*.cpp))
OBJS = $(SOURCES:.cpp=.o)

# One file per domain, concatenated in the order of their names.
INSTALL_SQL = $(sort $(wildcard sql/install/*.sql))
EXTENSION_SQL = sql/session_store--$(EXTVERSION).sql
DATA_built = $(EXTENSION_SQL)

PG_CONFIG ?= pg_config
CXX_STANDARD = -std=c++20
# PostgreSQL 15 headers use `register`, which C++17 and later refuse.
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wno-register $(if $(WERROR),-Werror)
PG_CPPFLAGS = -Isrc -isystem $(shell $(PG_CONFIG) --includedir-server)
PG_CXXFLAGS = $(CXX_STANDARD) $(WARNINGS) $(EXTRA_CXXFLAGS)
# hiredis has TLS from 1.0 on, in a library of its own.
HIREDIS_TLS = $(shell printf '\043include <hiredis/hiredis_ssl.h>\n\043include <openssl/ssl.h>\n' | \
	$(CXX) -E -x c++ - >/dev/null 2>&1 && echo -lhiredis_ssl -lssl -lcrypto)
SHLIB_LINK = -lhiredis $(HIREDIS_TLS) -lz $(EXTRA_SHLIB_LINK)
# Link with the C++ driver, so that the C++ runtime is linked too.
override COMPILER = $(CXX) $(CXXFLAGS)

# Run a second time, on partitioned stores, and expected to show the same.
ON_BOTH_LAYOUTS = upsert touch expire destroy bytes merge users owner bad_input
SPECS_ON_BOTH_LAYOUTS = upsert_upsert merge_merge expected_version_race touch_against_cleanup \
	locked_against_cleanup expire_user_against_upsert isolation_levels
REGRESS = install stores upsert insert lookup touch expire destroy bytes merge users owner direct bad_input rights \
	redis_server mirror_requests status cleanup drop_extension \
	partitions repartition partitioned_layout $(ON_BOTH_LAYOUTS)
REGRESS_OPTS = --temp-instance=tmp_check_regress --temp-config=t/preload.conf --encoding=UTF8
ISOLATION = logout_against_upsert logout_behind_the_guard upsert_upsert merge_merge expected_version_race \
	touch_against_cleanup locked_against_cleanup expire_user_against_upsert isolation_levels \
	on_partitions $(SPECS_ON_BOTH_LAYOUTS)
ISOLATION_OPTS = --temp-instance=tmp_check_isolation --temp-config=t/preload.conf
TAP_TESTS = 1
EXTRA_CLEAN = tmp_check tmp_check_regress tmp_check_isolation $(OBJS:.o=.d) $(EXTENSION_SQL)

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS gives clang none of PG_CXXFLAGS when it makes bitcode, and knows nothing of changed headers.
COMPILE.cxx.bc += $(CXX_STANDARD) -Wno-register -Wno-deprecated-volatile
%.o: %.cpp Makefile
	$(CXX) $(CXXFLAGS) $(CPPFLAGS) -MMD -MP -MF $*.d -c -o $@ $<
-include $(OBJS:.o=.d)
# Bitcode is rebuilt whenever the object is: its headers are the same.
$(OBJS:.o=.bc): %.bc: %.o

$(EXTENSION_SQL): $(INSTALL_SQL) session_store.control Makefile
	cat $(INSTALL_SQL) > $@
