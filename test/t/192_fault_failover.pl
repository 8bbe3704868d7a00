
# Copies of a server that consumes: a streaming standby that is promoted, a physical copy that
# goes on from its own instant or rests, and recovery to moments between commits.  Each copy has
# results, offsets and open windows of one instant, and goes on from there exactly; what it then
# computes is what the first server, which nothing happened to, has computed.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $mock      = mockd();
my $bootstrap = $mock->bootstrap;
$mock->create('t', 2);

my $primary = new_node('primary', allows_streaming => 1, archiving => 1, conf => q(
stream_engine.commit_interval = 10ms
stream_engine.retry_interval = 20ms
));
$primary->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka
		OPTIONS (bootstrap_servers '$bootstrap', fetch_wait_max_ms '10');
	BEGIN;
	SELECT stream_engine.create_stream('s', server => 'kafka', topic => 't', columns => 'k text, v bigint, ts timestamptz',
		event_time => 'ts', watermark_delay => '2 seconds', idle_timeout => '1 hour', staging_retention => '1 minute');
	SELECT stream_engine.create_query('tumbling', \$\$ SELECT k, sum(v) AS total, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k \$\$);
	SELECT stream_engine.create_query('hopping', \$\$ SELECT k, max(v) AS high, count(*) AS n FROM s GROUP BY hop(ts, '20 seconds', every => '5 seconds'), k \$\$);
	SELECT stream_engine.create_query('by_session', \$\$ SELECT k, count(*) AS n FROM s GROUP BY session(ts, '3 seconds'), k \$\$);
	SELECT stream_engine.create_query('ever', \$\$ SELECT k, count(*) AS n FROM s GROUP BY k \$\$, trigger_interval => '10 seconds');
	COMMIT));
my @queries = qw(tumbling hopping by_session ever);

# Records of eight seconds, eight in each partition, as far apart in both.
my $sent = 0;
sub produce
{
	my ($times) = @_;

	for (1 .. $times)
	{
		foreach my $partition (0, 1)
		{
			$mock->produce('t', $partition, map {
				my $i = 8 * $sent + $_;
				sprintf('{"k": "%s", "v": %d, "ts": "2025-01-01T%02d:%02d:%02dZ"}',
					(qw(a b c d e))[ $i % 5 ], $i, $i / 3600, $i / 60 % 60, $i % 60)
			} 0 .. 7);
		}
		$sent++;
	}
	return;
}

sub rows
{
	my ($node, $relation) = @_;
	return $node->safe_psql('postgres', "SELECT r::text FROM (SELECT to_jsonb(r) - 'emitted_at' AS r FROM $relation r) r ORDER BY 1");
}

sub positions
{
	my ($node) = @_;
	return $node->safe_psql('postgres', 'SELECT sum(next_offset) FROM stream_engine.stat_partitions WHERE query = \'tumbling\'::regclass');
}

# What a copy shows at rest is what SQL gives for the records before its offsets.
sub is_of_one_instant
{
	my ($node, $when) = @_;
	my $before = q(EXISTS (SELECT FROM stream_engine.stat_partitions p WHERE p.query = 'tumbling'::regclass
		AND p.partition = s._partition AND s._offset < p.next_offset));

	is($node->safe_psql('postgres', 'SELECT count(DISTINCT (partition, next_offset)) = count(DISTINCT partition) FROM stream_engine.stat_partitions WHERE query IS NOT NULL'),
		't', "$when: the queries stand at the same offsets");
	is($node->safe_psql('postgres', "SELECT * FROM stream_engine.verify('$_') LIMIT 5"), '', "$when: $_ is verified")
	  foreach qw(tumbling hopping);
	is($node->safe_psql('postgres', "SELECT k, n FROM ever_live ORDER BY k"),
		$node->safe_psql('postgres', "SELECT k, count(*) FROM s WHERE $before GROUP BY k ORDER BY k"), "$when: totals");
	is($node->safe_psql('postgres', 'SELECT sum(n) FROM tumbling_live'), positions($node), "$when: each record is in a window");
	is($node->safe_psql('postgres', "SELECT k, sum(n) FROM by_session_live GROUP BY k ORDER BY k"),
		$node->safe_psql('postgres', "SELECT k, n FROM ever_live ORDER BY k"), "$when: each is in a session");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_engine.reader_partition WHERE records + gaps <> next_offset - start_offset'),
		'0', "$when: all are accounted for");
	return;
}

# A copy reads on, to what the primary has.
sub goes_on
{
	my ($node, $when) = @_;

	foreach my $query (@queries)
	{
		wait_for_all($node, $query);
	}
	is(rows($node, "${_}_live"), rows($primary, "${_}_live"), "$when: $_ comes to what the primary has") foreach @queries;
	is_of_one_instant($node, "$when, and read on");
	is($node->safe_psql('postgres', q(SELECT count(*) FROM s_recent)) > 0 ? 1 : 0, 1, "$when: rows are staged again");
	return;
}

sub rest
{
	my ($node) = @_;
	$node->append_conf('postgresql.conf', "archive_mode = off\nstream_engine.enabled = off");
	return;
}

sub wake
{
	my ($node) = @_;
	$node->append_conf('postgresql.conf', 'stream_engine.enabled = on');
	$node->reload;
	return;
}

produce(6);
wait_for_all($primary, $_) foreach @queries;
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
# The archive is the primary's alone.
$standby->append_conf('postgresql.conf', 'archive_mode = off');
$standby->start;

# ---------------------------------------------------------------------------
# While much comes, moments are marked and copies taken
# ---------------------------------------------------------------------------

# The next commit of the reader that is seen, by the transaction that has made it.
my $progress = q(SELECT seq, xmin FROM stream_engine.reader WHERE absorbed_by IS NULL AND head);
my @moments;
for my $i (1 .. 3)
{
	my $seen = $primary->safe_psql('postgres', $progress);
	produce(2);
	wait_until($primary, sub { $primary->safe_psql('postgres', $progress) ne $seen }, 'a commit has happened');
	my ($seq, $xid) = split /\|/, $primary->safe_psql('postgres', $progress);
	push @moments, { xid => $xid, seq => $seq };
	produce(3);
}
$primary->safe_psql('postgres', "SELECT pg_create_restore_point('here')");
produce(5);
# In the midst of commits.
my $clone = PostgreSQL::Test::Cluster->new('clone');
$primary->backup('later');
produce(5);
wait_for_all($primary, $_) foreach @queries;
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');

# ---------------------------------------------------------------------------
# The standby, and its promotion
# ---------------------------------------------------------------------------

$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
is(rows($standby, "${_}_live"), rows($primary, "${_}_live"), "the standby shows open and closed windows: $_") foreach @queries;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE \'stream_engine reader%\''), '0', 'no worker runs on it');
# It is promoted while the primary works.
produce(4);
$standby->promote;
produce(4);
wait_for_all($primary, $_) foreach @queries;
goes_on($standby, 'promoted');
$standby->stop('fast');

# ---------------------------------------------------------------------------
# A copy of a running server
# ---------------------------------------------------------------------------

$clone->init_from_backup($primary, 'later');
rest($clone);
$clone->start;
is($clone->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE \'stream_engine reader%\''), '0', 'a copy with the engine off rests');
is_of_one_instant($clone, 'a copy at rest');
my $stands_at = positions($clone);
cmp_ok($stands_at, '<', positions($primary), 'it stands where it was taken');
produce(2);
is(positions($clone), $stands_at, 'and stays there');
wake($clone);
wait_for_all($primary, $_) foreach @queries;
goes_on($clone, 'a copy');
produce(2);
wait_for_all($primary, $_) foreach @queries;
goes_on($clone, 'both consume');
$clone->stop('fast');

# ---------------------------------------------------------------------------
# Recovery to a moment
# ---------------------------------------------------------------------------

my $number = 0;
foreach my $target (
	(map { [ "recovery_target_xid = '$_->{xid}'", $_->{seq} ] } @moments),
	[ "recovery_target_xid = '$moments[1]{xid}'\nrecovery_target_inclusive = off", $moments[1]{seq} - 1 ],
	[ "recovery_target_name = 'here'" ])
{
	my ($setting, $seq) = @$target;
	my $name = "recovered" . ++$number;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($primary, 'base', has_restoring => 1, standby => 0);
	$node->append_conf('postgresql.conf', "$setting\nrecovery_target_timeline = current\nrecovery_target_action = promote\n");
	rest($node);
	$node->start;
	wait_for($node, 'SELECT NOT pg_is_in_recovery()');
	my ($got) = split /\|/, $node->safe_psql('postgres', $progress);
	is($got, $seq, "$name: it is the moment after that commit") if defined $seq;
	is_of_one_instant($node, $name);
	wake($node);
	goes_on($node, $name);
	$node->stop('fast');
}

is_of_one_instant($primary, 'the primary');
unlike(log_since($primary, 0), qr/PANIC|TRAP|was terminated by signal/, 'the log has no crash');
$primary->stop('fast');
done_testing();
