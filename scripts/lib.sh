# shellcheck shell=bash disable=SC2034
# Shared by the scripts here: packages, Node, a work directory, temporary PostgreSQL clusters, and steps with their time.
#
# Nothing here relies on a running service: a fresh Debian machine may forbid starting them (policy-rc.d), so every
# server is our own, in a work directory under /tmp (a unix socket's path must be short), and is stopped by its pid.
# To be sourced by bash; sets -euo pipefail.
set -euo pipefail
# The test drivers drop LC_ALL, and LANG then gives their clusters the encoding.
export LANG=C.UTF-8 LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

project_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
export PG_CONFIG
pg_bin=$(dirname "$PG_CONFIG")
jobs=$(nproc)
work=

# What each purpose needs, as Debian packages: the one list. A name with a colon is command:package, for what may
# also be there from another source than Debian's.
packages_build=(postgresql-15 postgresql-server-dev-15 libhiredis-dev zlib1g-dev g++ make clang-14 llvm-14-dev)
packages_run=(redis-server)
packages_test=(libipc-run-perl cmake libgtest-dev clang-format clang-tidy pgbouncer python3:python3 php:php-cli ruby:ruby)
packages_soak=(python3-redis python3-psycopg2)
packages_node=(node:nodejs npm:npm)
packages_matrix=(mmdebstrap)
node_major_needed=20
node_fallback=20.20.2

say() { printf '%s\n' "$*"; }
die() {
	printf '%s\n' "$*" >&2
	exit 1
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Run a command as the user who may own clusters: initdb and the test drivers refuse root.
as_server() {
	if [ "$(id -u)" -eq 0 ]; then
		# The caller's directory may be closed to that user, and PostgreSQL's programs insist on entering it.
		(cd "${work:-/}" && HOME=${work:-/} exec runuser -u postgres -- "$@")
	else
		"$@"
	fi
}

# install_packages name|command:name ...   apt-get is called only when something is missing.
install_packages() {
	local entry missing=() log
	for entry in "$@"; do
		case $entry in
		*:*) command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}") ;;
		*) [ "$(dpkg-query -W -f '${db:Status-Status}' "$entry" 2>/dev/null)" = installed ] || missing+=("$entry") ;;
		esac
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	command -v apt-get >/dev/null || die "Missing: ${missing[*]}; there is no apt-get here to install them with."
	say "Installing ${missing[*]}"
	log=$(mktemp)
	if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "Could not install ${missing[*]}."
	fi
	rm -f "$log"
}

# What may be kept from one run to the next; root's is readable by the user who runs the servers.
cache_dir() {
	local dir=/var/cache/session_store
	[ "$(id -u)" -eq 0 ] || dir=${XDG_CACHE_HOME:-$HOME/.cache}/session_store
	mkdir -p "$dir"
	printf '%s' "$dir"
}

node_major() { "$1" -p 'process.versions.node.split(".")[0]' 2>/dev/null || printf 0; }

# Set $NODE, for us and what we start, to a Node that the clients run on: node-redis needs 20, Debian 12 has 18, and npm
# has Node's own binaries.
ensure_node() {
	local arch dir log
	[ "$(node_major "${NODE:-none}")" -lt "$node_major_needed" ] || return 0
	command -v node >/dev/null || install_packages "${packages_node[@]}"
	NODE=$(command -v node)
	export NODE
	[ "$(node_major "$NODE")" -lt "$node_major_needed" ] || return 0
	case $(uname -m) in
	x86_64) arch=x64 ;;
	aarch64) arch=arm64 ;;
	*) die "Node $node_major_needed or newer is needed, and none is known for $(uname -m): put one on PATH." ;;
	esac
	dir=$(cache_dir)/node-$node_fallback
	NODE=$dir/node_modules/node-linux-$arch/bin/node
	if [ "$(node_major "$NODE")" -lt "$node_major_needed" ]; then
		install_packages "${packages_node[@]}"
		say "Installing Node $node_fallback from npm (this machine's is $(node --version))"
		mkdir -p "$dir"
		log=$dir/install.log
		(cd "$dir" && npm install --no-save --no-audit --no-fund --prefix "$dir" \
			"node-linux-$arch@$node_fallback") >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "npm could not install Node."; }
	fi
	[ "$(node_major "$NODE")" -ge "$node_major_needed" ] || die "The Node from npm does not run here."
}

# ensure_node_modules folder   installs what its package-lock.json says, only when that is not what is there.
ensure_node_modules() {
	local dir=$1 stamp log sum
	ensure_node
	stamp=$dir/node_modules/.installed
	sum=$(sha256sum <"$dir/package-lock.json")
	[ "$(cat "$stamp" 2>/dev/null)" != "$sum" ] || return 0
	install_packages "${packages_node[@]}"
	say "Installing the Node packages of ${dir#"$project_root"/}"
	log=$(mktemp)
	# npm itself runs on Debian's own Node; engines is what the packages need, which ensure_node has seen to.
	if ! (cd "$dir" && npm ci --no-audit --no-fund --engine-strict=false) >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "npm ci failed in ${dir#"$project_root"/}."
	fi
	rm -f "$log"
	printf '%s\n' "$sum" >"$stamp"
}

# Every folder of the tree that has a package-lock.json: the tests run Node as well.
ensure_all_node_modules() {
	local dir dirs
	mapfile -t dirs < <(find "$project_root" -name node_modules -prune -o -name package-lock.json -printf '%h\n')
	for dir in "${dirs[@]}"; do ensure_node_modules "$dir"; done
}

# Make the work directory $work, owned by the user of as_server, and have it removed at exit with all that runs in it.
make_work_dir() {
	work=$(mktemp -d /tmp/session_store.XXXXXX)
	chmod 755 "$work"
	mkdir "$work/pids"
	[ "$(id -u)" -ne 0 ] || chown -R postgres: "$work"
	trap cleanup_work EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

# A pid file counts only while the process it names works in our directory: a pid may have been given away since.
is_ours() {
	local pid=$1
	[ -n "$pid" ] && as_root test -e "/proc/$pid" || return 1
	[[ "$(as_root readlink "/proc/$pid/cwd" 2>/dev/null) $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")" == *"$work"* ]]
}

# stop_pid pid [first signal]   ends with KILL what has not gone after ten seconds.
stop_pid() {
	local pid=$1 signal=${2:-TERM}
	is_ours "$pid" || return 0
	as_root kill "-$signal" "$pid" 2>/dev/null || return 0
	for _ in $(seq 100); do
		is_ours "$pid" || return 0
		sleep 0.1
	done
	as_root kill -KILL "$pid" 2>/dev/null || true
}

cleanup_work() {
	local status=$? file
	trap '' INT TERM HUP
	trap - EXIT
	if [ -n "$work" ] && [ -d "$work" ]; then
		for file in "$work"/pids/*; do
			[ ! -f "$file" ] || stop_pid "$(cat "$file")"
		done
		for file in "$work"/*/postmaster.pid; do
			# INT is a fast shutdown: it does not wait for clients.
			[ ! -f "$file" ] || stop_pid "$(head -n 1 "$file")" INT
		done
		if [ -n "${KEEP_WORK:-}" ]; then
			say "Kept: $work"
		else
			as_root rm -rf "$work"
		fi
	fi
	exit "$status"
}

# start_postgres name [line of postgresql.conf ...]   a cluster in $work/name, its socket in $work, trust for local users.
start_postgres() {
	local name=$1 data=$work/$1
	shift
	as_server "$pg_bin/initdb" -D "$data" -U postgres --auth=trust --encoding=UTF8 --no-sync >"$work/$name.initdb.log" 2>&1 ||
		{ tail -n 20 "$work/$name.initdb.log" >&2; die "initdb failed."; }
	{
		printf "listen_addresses = ''\nunix_socket_directories = '%s'\nmax_connections = 50\n" "$work"
		[ $# -eq 0 ] || printf '%s\n' "$@"
	} | as_server tee -a "$data/postgresql.conf" >/dev/null
	as_server "$pg_bin/pg_ctl" -D "$data" -l "$work/$name.log" -w -t 60 start >/dev/null 2>&1 ||
		{ tail -n 20 "$work/$name.log" >&2; die "PostgreSQL did not start."; }
}

# Build the extension in $1 and install it, each only when needed. What is installed is compared by its bytes.
build_and_install() {
	local tree=$1 log=${work:-/tmp}/build.log lib share file stale=
	if ! make -s -C "$tree" -j"$jobs" >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		die "The build failed."
	fi
	lib=$("$PG_CONFIG" --pkglibdir)
	share=$("$PG_CONFIG" --sharedir)/extension
	cmp -s "$tree/session_store.so" "$lib/session_store.so" || stale=1
	for file in "$tree"/session_store.control "$tree"/sql/session_store--*.sql; do
		cmp -s "$file" "$share/$(basename "$file")" || stale=1
	done
	[ -n "$stale" ] || return 0
	if ! as_root make -C "$tree" install PG_CONFIG="$PG_CONFIG" >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		die "The installation failed."
	fi
}

# run_in_background name command ...   so that a signal reaches us at once, and then the command by its pid.
run_in_background() {
	local name=$1 status=0
	shift
	"$@" &
	echo $! >"$work/pids/$name"
	wait $! || status=$?
	rm -f "$work/pids/$name"
	return "$status"
}

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }
