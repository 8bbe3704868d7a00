
# Rule: a worker that reads from Kafka and gets no more memory loses nothing, whoever asked for
# it.  PostgreSQL's own allocations fail with an error, and the cycle is thrown away; librdkafka ends
# the process, and the server restarts its processes as after any crash.  No query is
# stopped, and when there is memory again each record counts once.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

plan(skip_all => 'no prlimit') if system('prlimit --version >/dev/null 2>&1') != 0;

my $broker = broker();
my $topic  = $broker->topic_name('large');
my $node   = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
stream_engine.max_failures = 3
restart_after_crash = on
));

$broker->topic($topic, 1, 'max.message.bytes=10000000');
create_server($node, $broker);
$node->safe_psql('postgres', qq(
	BEGIN;
	SELECT stream_engine.create_stream('s', server => 'kafka', topic => '$topic', columns => 'k text, pad text, ts timestamptz',
		event_time => 'ts', watermark_delay => '0', idle_timeout => '1 hour', staging_retention => '0');
	SELECT stream_engine.create_query('q', \$\$ SELECT k, count(*) AS n, sum(length(pad)) AS total, max(pad COLLATE "C") AS high
		FROM s GROUP BY tumble(ts, '10 seconds'), k \$\$);
	COMMIT));

# A window of records, of which some have so many bytes of padding.
my $second = 0;
my $sent   = 0;
my $bytes  = 0;
sub produce
{
	my ($large, $size) = @_;
	my @records;

	foreach my $i (1 .. 20)
	{
		my $pad = 'x' x ($i <= $large ? $size : $i);

		push @records, sprintf('{"k": "%s", "pad": "%s", "ts": "2025-01-01T%02d:%02d:%02dZ"}', (qw(a b))[ $i % 2 ], $pad,
			$second / 3600, $second / 60 % 60, $second % 60);
		$bytes += length $pad;
		$sent++;
		$second++;
	}
	$broker->produce($topic, 0, @records);
	return;
}

sub is_exact
{
	my ($when) = @_;

	wait_until($node, sub { try_sql($node, "CALL stream_engine.wait('q', '1 minute')") == 0 }, "$when: all is read");
	is($node->safe_psql('postgres', 'SELECT sum(n), sum(total) FROM q_live'), "$sent|$bytes", "$when: each record counts once");
	is_accounted($node, 'q');
	is($node->safe_psql('postgres', "SELECT * FROM stream_engine.verify('q') LIMIT 1"), '', "$when: verified");
	return;
}

sub limit
{
	my ($pid, $kb) = @_;
	my $value = $kb eq 'unlimited' ? $kb : $kb * 1024;

	return system('prlimit', "--pid=$pid", "--as=$value:") == 0;
}

my $reader = "SELECT pid FROM stream_engine.stat_workers WHERE kind = 'reader' AND pid IS NOT NULL LIMIT 1";
# What a worker says or does that has no memory.
my $fails = qr/stream_engine reader[^\n]*ERROR:  out of memory|\(PID \d+\) was terminated by signal 6|could not (?:start|create)[^\n]*(?:thread|consumer|handle|memory)/i;

sub size
{
	my ($pid) = @_;
	return (slurp_file("/proc/$pid/status") =~ /^VmSize:\s+(\d+) kB/m)[0];
}

produce(0);
is_exact('memory');
my $pid    = $node->safe_psql('postgres', $reader);
my $little = size($pid);

# ---------------------------------------------------------------------------
# One process
# ---------------------------------------------------------------------------

# A record that is too large for what the worker has left.
my $position = log_position($node);
ok(limit($pid, $little), 'a worker gets no more memory');
produce(4, 5_000_000);
wait_for_log($node, $fails, $position);
note(log_since($node, $position) =~ /($fails)/);
is_exact('a worker was out of memory');

# librdkafka asserts that malloc() gives what it asks for: its process ends by abort().
wait_for($node, "SELECT ($reader) IS NOT NULL");
$pid = $node->safe_psql('postgres', $reader);
$position = log_position($node);
kill(6, $pid);
produce(2, 1_000_000);
wait_for_log($node, qr/\(PID $pid\) was terminated by signal 6.*database system is ready to accept connections/s, $position);
is_exact('a worker was aborted');

# ---------------------------------------------------------------------------
# All that the server starts
# ---------------------------------------------------------------------------

my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
$position = log_position($node);
ok(limit($postmaster, $little), 'all processes get little memory');
produce(4, 5_000_000);
($pid) = (try_sql($node, $reader))[1];
kill(15, $pid) if $pid;
wait_for_log($node, qr/(?:$fails.*?){3}/s, $position);
limit($postmaster, 'unlimited');
wait_until($node, sub { try_sql($node, 'SELECT 1') == 0 }, 'the server is back');
is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state, ',') FROM (SELECT state FROM stream_engine.queries UNION ALL SELECT state FROM stream_engine.streams) s"),
	'running', 'a lack of memory stops no query');
note($_) foreach log_since($node, $position) =~ /$fails/g;
is_exact('all had little memory');

unlike(log_since($node, 0), qr/PANIC|TRAP|signal (?:7|8|11):/, 'no other crash');
leaves_nothing($node);
done_testing();
