# The routing rules of clients/README.md, in every language that this machine runs, against
# session_store.owner over random sids.
use strict;
use warnings;
use utf8;
use Encode qw(encode_utf8);
use File::Temp;
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $kSids = 2000;
my $folder = PostgreSQL::Test::Utils::tempdir();

# The code of a language, by the name that its block has in the README.
my %rule;
my $readme = slurp_file("$FindBin::RealBin/../clients/README.md");
$rule{$1} = $2 while $readme =~ /^```(\w+)\n(.*?)^```$/gms;

# Each program reads lines of phase, percentage and the sid in hexadecimal, and answers with owners.
my %program = (
	js => [ 'owner.mjs', sub { <<"END" }, sub { ($ENV{NODE} || 'node', $_[0]) } ],
$_[0]
import { readFileSync } from 'node:fs';
for (const line of readFileSync(0, 'latin1').trim().split('\\n')) {
	const [phase, percent, hex] = line.split(' ');
	console.log(owner(Buffer.from(hex, 'hex').toString('utf8'), phase, Number(percent)));
}
END
	python => [ 'owner.py', sub { <<"END" }, sub { ('python3', $_[0]) } ],
$_[0]
import sys
for line in sys.stdin:
    phase, percent, text = line.split()
    print(owner(bytes.fromhex(text).decode('utf-8'), phase, int(percent)))
END
	php => [ 'owner.php', sub { <<"END" }, sub { ('php', $_[0]) } ],
<?php
$_[0]
while (\$line = fgets(STDIN)) {
	[\$phase, \$percent, \$hex] = explode(' ', trim(\$line));
	echo owner(hex2bin(\$hex), \$phase, (int) \$percent), "\\n";
}
END
	ruby => [ 'owner.rb', sub { <<"END" }, sub { ('ruby', $_[0]) } ],
$_[0]
STDIN.each_line do |line|
  phase, percent, hex = line.split
  puts owner([hex].pack('H*').force_encoding('UTF-8'), phase, percent.to_i)
end
END
	java => [ 'Owner.java', sub { <<"END" }, sub { ('java', $_[0]) } ],
public class Owner {
$_[0]
	public static void main(String[] arguments) throws Exception {
		var lines = new java.io.BufferedReader(new java.io.InputStreamReader(System.in)).lines().toList();
		for (String line : lines) {
			String[] part = line.split(" ");
			byte[] bytes = java.util.HexFormat.of().parseHex(part[2]);
			String sid = new String(bytes, java.nio.charset.StandardCharsets.UTF_8);
			System.out.println(owner(sid, part[0], Integer.parseInt(part[1])));
		}
	}
}
END
	go => [ 'owner.go', sub { <<"END" }, sub { ('go', 'run', $_[0]) } ],
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
)

$_[0]
func main() {
	scanner := bufio.NewScanner(os.Stdin)
	for scanner.Scan() {
		var phase, digits string
		var percent uint32
		fmt.Sscan(scanner.Text(), &phase, &percent, &digits)
		sid, _ := hex.DecodeString(digits)
		fmt.Println(owner(string(sid), phase, percent))
	}
}
END
);

# Whether there is such a program, and it is new enough for the rule.
sub runs_here
{
	my ($command, $language) = @_;
	my ($output, $error) = ('', '');
	my @try =
		$language eq 'js'   ? ('-e', 'process.exit(require("zlib").crc32 ? 0 : 1)')
	  : $language eq 'java' ? ('-version')
	  : $language eq 'go'   ? ('version')
	  :                       ('--version');
	return eval { IPC::Run::run([ $command, @try ], '>', \$output, '2>', \$error) } || 0;
}

srand 20261125;
my @alphabet = (map({ chr } ord '!' .. ord '~'), map({ chr } 0xC0 .. 0x17F), 'セ', 'ッ', 'シ', chr 0x1F642, chr 0x10FFFF);
my (@questions, @rows);
for my $i (1 .. $kSids)
{
	my $length = $i == 1 ? 1 : $i == 2 ? 255 : 1 + int rand 60;
	my $sid = join '', map { $alphabet[ rand($i % 2 ? 94 : @alphabet) ] } 1 .. $length;
	my $hex = unpack 'H*', encode_utf8($sid);
	my $phase = $i % 10 ? 'dual_redis_primary' : (qw(redis_only dual_pg_primary pg_only))[ rand 3 ];
	my $percent = $phase eq 'dual_redis_primary' ? int rand 101 : 0;
	push @questions, "$phase $percent $hex";
	push @rows, "$i\t$phase\t$percent\t$hex";
}

my $node = PostgreSQL::Test::Cluster->new('routing');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION session_store; SELECT session_store.create_store()');
my $rows = join "\n", @rows;
my $expected = $node->safe_psql('postgres', qq{
	CREATE TABLE questions (id integer PRIMARY KEY, phase text, percent integer, sid text);
	CREATE TABLE answers (id integer PRIMARY KEY, owner text);
	COPY questions FROM stdin;
$rows
\\.
	DO \$\$
	DECLARE
		setting record;
	BEGIN
		FOR setting IN SELECT DISTINCT phase, percent FROM questions LOOP
			UPDATE session_store.registry SET phase = setting.phase, rollout_percent = setting.percent;
			INSERT INTO answers
				SELECT id, session_store.owner(convert_from(decode(sid, 'hex'), 'UTF8')) FROM questions
				WHERE phase = setting.phase AND percent = setting.percent;
		END LOOP;
	END \$\$;
	SELECT owner FROM answers ORDER BY id});
my $moved = () = $expected =~ /postgres/g;
cmp_ok($moved, '>', $kSids / 4, "session_store.owner gives PostgreSQL its share: $moved of $kSids");
cmp_ok($moved, '<', $kSids * 3 / 4, 'and Redis its own');

for my $language (sort keys %program)
{
	my ($file, $source, $command) = @{ $program{$language} };
	my @run = $command->("$folder/$file");
  SKIP:
	{
		skip "$language does not run here", 1 unless runs_here($run[0], $language);
		append_to_file("$folder/$file", $source->($rule{$language}));
		my $input = join("\n", @questions) . "\n";
		my ($output, $error) = ('', '');
		IPC::Run::run(\@run, '<', \$input, '>', \$output, '2>', \$error) or diag($error);
		chomp $output;
		is($output, $expected, "the rule in $language");
	}
}
is(scalar(keys %program), scalar(grep { $program{$_} } keys %rule), 'every rule of the README is tried');

$node->stop;
done_testing();
