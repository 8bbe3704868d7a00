
# A worker that has read its definition again waits for the descriptor of the source
# that it has opened then, though it has the number of the old one.  Seen from outside,
# in what the kernel tells of the process: records would be read without it, too, but late.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main');
my $mock = mockd();
my $bootstrap = $mock->bootstrap;

# What a file of a process is: "number kind" for those of the kernel's kinds that matter.
sub files
{
	my ($pid, $kind) = @_;
	my @found;

	foreach my $path (glob "/proc/$pid/fd/*")
	{
		my $what = readlink $path // next;
		push @found, $path =~ s/.*\///r if $what eq "anon_inode:[$kind]";
	}
	return @found;
}

sub info
{
	my ($pid, $number) = @_;
	return eval { slurp_file("/proc/$pid/fdinfo/$number") } // '';
}

# The number of the eventfd that a worker's source has.
sub source_descriptor
{
	my ($pid) = @_;
	return (files($pid, 'eventfd'))[0];
}

# The source's identity: the thread that its librdkafka has started last.
sub source_thread
{
	my ($pid) = @_;
	my @threads = grep { (eval { slurp_file("$_/comm") } // '') =~ /^rdk:main/ } glob "/proc/$pid/task/*";
	return (sort { $a <=> $b } map { s/.*\///r } @threads)[-1];
}

sub is_waited_for
{
	my ($pid, $number) = @_;
	return defined $number && grep { info($pid, $_) =~ /^tfd:\s*$number\s/m } files($pid, 'eventpoll');
}

$mock->create('events', 1);
$node->safe_psql('postgres', qq(
	CREATE SERVER mock FOREIGN DATA WRAPPER stream_engine_kafka
		OPTIONS (bootstrap_servers '$bootstrap', fetch_wait_max_ms '10');
	SELECT stream_engine.create_stream('events', server => 'mock', topic => 'events',
		columns => 'v int, ts timestamptz', event_time => 'ts', watermark_delay => '0 s');
	SELECT stream_engine.create_query('counts',
		'SELECT count(*) AS n FROM events GROUP BY tumble(ts, ''1 minute'')')));
$mock->produce('events', 0, '{"v": 1, "ts": "2026-01-05T00:00:00Z"}');
wait_for($node, q(SELECT counted = 1 FROM stream_engine.stat_queries));

my ($worker) = engine_processes($node, 'stream_engine reader%');
my $pid = $worker->[0];
my $thread = source_thread($pid);

plan skip_all => 'this kernel does not tell what a process waits for'
  unless defined $thread && defined source_descriptor($pid);
wait_until($node, sub { is_waited_for($pid, source_descriptor($pid)) }, 'the first source is waited for');
pass('the first source is waited for');

foreach my $wait_ms (11, 12, 13)
{
	$node->safe_psql('postgres', "ALTER SERVER mock OPTIONS (SET fetch_wait_max_ms '$wait_ms')");
	wait_until($node, sub { (source_thread($pid) // $thread) != $thread }, 'another source is open');
	wait_until($node, sub { is_waited_for($pid, source_descriptor($pid)) }, 'the other source is waited for');
	is((engine_processes($node, 'stream_engine reader%'))[0][0], $pid, 'the worker waits for its other source');
	$thread = source_thread($pid);
}

$mock->produce('events', 0, '{"v": 2, "ts": "2026-01-05T00:01:00Z"}');
wait_for($node, q(SELECT sum(n) = 1 FROM counts));
pass('a window closes after that');

done_testing();
