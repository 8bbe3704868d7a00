
# pg_upgrade brings streams along with their positions and the state of their open
# windows: they go on by themselves, and each window has the result that it would have
# had.  A query whose state the new server could not read is set aside and says so.
# Needs an older server with the extension: test/versions.sh names its programs in
# SE_OLD_BIN.

use strict;
use warnings FATAL => 'all';

use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $old_bin = $ENV{SE_OLD_BIN} // '';
plan skip_all => 'no older server, see test/versions.sh' if $old_bin eq '';

my $conf = q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
);
# 18 has checksums unless told otherwise, and both clusters must agree.
my $old = new_node('old', install_path => dirname($old_bin), init => ['--data-checksums'], conf => $conf);
my $new = new_node('new', init => ['--data-checksums'], conf => "$conf\nstream_engine.enabled = off\n", start => 0);
my $mock      = mockd();
my $bootstrap = $mock->bootstrap;
$mock->create('t', 2);

# Eight records in each partition, a second apart.
my $sent  = 0;
my $pause = 0;
sub produce
{
	foreach my $partition (0, 1)
	{
		$mock->produce('t', $partition, map {
			my $i = 8 * $sent + $_;
			sprintf('{"k": "%s", "v": %d, "n": %d.%03d, "f": %d.5, "i": "%d s", "ts": "2025-01-01T00:%02d:%02dZ"}',
				(qw(a b ä))[ $i % 3 ], 1000000007 * $i, $i, $i % 7 * 100 + $partition, $i % 5, $i,
				($i + $pause) / 60, ($i + $pause) % 60)
		} 0 .. 7);
	}
	$sent++;
	return;
}

my $aggregates = join(', ', 'count(*)', 'count(v) FILTER (WHERE n > 20)',
	(map { my $f = $_; map { "$f($_)" } qw(v n f) } qw(sum avg min max stddev var_pop)),
	'min(k)', 'max(ts)', 'min(i)', 'max(i)', 'regr_avgy(f, v)', 'regr_sxx(f, v)', 'bit_xor(v)', 'bool_and(f > 1)',
	'count(DISTINCT n)', 'array_agg(DISTINCT k)', 'count(DISTINCT (k, f))');
my $column = 0;
$aggregates =~ s/(\)(?:\s*FILTER \([^)]*\))?)(, |$)/$1 . ' AS a' . $column++ . $2/ge;

my %queries = (
	tumbling   => q(SELECT k, %s FROM s GROUP BY tumble(ts, '1 minute'), k),
	hopping    => q(SELECT %s FROM s GROUP BY hop(ts, '1 minute', every => '20 seconds')),
	growing    => q(SELECT n, %s FROM s GROUP BY cumulate(ts, '2 minutes', step => '10 seconds'), n),
	by_session => q(SELECT k, %s FROM s GROUP BY session(ts, '2 minutes'), k),
	ever       => q(SELECT k, %s FROM s GROUP BY k));

sub rows
{
	my ($node, $relation) = @_;
	return $node->safe_psql('db', "SELECT r::text FROM (SELECT to_jsonb(r) - 'emitted_at' AS r FROM $relation r) r ORDER BY 1");
}

# ---------------------------------------------------------------------------
# The old server
# ---------------------------------------------------------------------------

$old->safe_psql('postgres', 'DROP EXTENSION stream_engine');
$old->safe_psql('postgres', q(CREATE DATABASE db));
$old->safe_psql('db', qq(
	CREATE EXTENSION stream_engine;
	CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka
		OPTIONS (bootstrap_servers '$bootstrap', fetch_wait_max_ms '50');
	SELECT stream_engine.create_stream('s', server => 'kafka', topic => 't',
		columns => 'k text, v bigint CHECK (v >= 0), n numeric, f float8, i interval, ts timestamptz',
		event_time => 'ts', watermark_delay => '2 seconds', idle_timeout => '1 hour')));
foreach my $name (sort keys %queries)
{
	my $sql = sprintf($queries{$name}, $aggregates);
	my $options = $name eq 'ever' ? ", trigger_interval => '30 seconds'" : '';
	$old->safe_psql('db', "SELECT stream_engine.create_query('$name', \$\$ $sql \$\$$options)");
}
# Its transition type is another since 17.
$old->safe_psql('db', q(SELECT stream_engine.create_query('intervals',
	$$ SELECT avg(i) AS a FROM s GROUP BY tumble(ts, '10 minutes') $$)));
produce() foreach 1 .. 11;
$old->safe_psql('db', "CALL stream_engine.wait('$_', '1 minute')") foreach sort keys %queries;
$mock->produce('t', 0, 'bad', '{"k": "a", "v": 1, "n": 1, "f": 1, "ts": "2025-01-01T00:00:00Z"}');
$old->safe_psql('db', "CALL stream_engine.wait('$_', '1 minute')") foreach sort keys %queries;

my %before = map { $_ => rows($old, $_) } sort keys %queries;
my %live   = map { $_ => rows($old, "${_}_live") } sort keys %queries;
isnt($before{$_}, '', "$_ has results") foreach qw(tumbling hopping growing ever);
isnt($live{$_}, $before{$_}, "$_ has open windows") foreach qw(tumbling hopping growing by_session);
my $kept = q(SELECT string_agg(r::text, E'\n' ORDER BY r::text) FROM
	(SELECT 'late', partition, "offset", record FROM stream_engine.late_events
	UNION ALL SELECT reason, partition, "offset", record FROM stream_engine.dead_letters) r);
my $kept_before = $old->safe_psql('db', $kept);
$old->stop('fast');
produce();

# ---------------------------------------------------------------------------
# The new server
# ---------------------------------------------------------------------------

chdir PostgreSQL::Test::Utils::tempdir('upgrade');
command_ok(
	[
		'pg_upgrade', '--no-sync', '-b', $old_bin, '-B', $new->config_data('--bindir'),
		'-d', $old->data_dir, '-D', $new->data_dir, '-s', $new->host,
		'-p', $old->port, '-P', $new->port
	],
	'pg_upgrade');
$new->start;
is(rows($new, $_), $before{$_}, "$_ has the results of the old server") foreach sort keys %queries;
is(rows($new, "${_}_live"), $live{$_}, "$_ has the open windows of the old server") foreach sort keys %queries;
is($new->safe_psql('db', $kept), $kept_before, 'late and bad records are there');

$new->append_conf('postgresql.conf', 'stream_engine.enabled = on');
$new->reload;
produce() foreach 1 .. 12;
# After it the sessions that were open are over.
$pause = 300;
produce();
$new->safe_psql('db', "CALL stream_engine.wait('$_', '1 minute')") foreach sort keys %queries;
is($new->safe_psql('db', q(SELECT state FROM stream_engine.streams)), 'running', 'the stream goes on by itself');
isnt(rows($new, $_), $before{$_}, "$_ goes on") foreach qw(tumbling hopping growing by_session);
foreach my $name (qw(tumbling hopping growing))
{
	is($new->safe_psql('db', "SELECT * FROM stream_engine.verify('$name')"), '', "$name is verified");
}
# These have no batch.  The last digits of float statistics depend on the order of additions.
my $exact = q(to_jsonb(r) - '{a16,a19,a24,a25,window_start,window_end,is_final,revision,emitted_at}'::text[]);
foreach my $pair ([ 'by_session', q(WHERE ts < '2025-01-01 00:05+00') ], [ 'ever_live', '' ])
{
	my ($relation, $where) = @$pair;
	is($new->safe_psql('db', "SELECT $exact FROM $relation r ORDER BY k"),
		$new->safe_psql('db', "SELECT $exact FROM (SELECT k, $aggregates FROM s $where GROUP BY k) r ORDER BY k"),
		"$relation has what the topic gives");
}
is($new->safe_psql('db', q(SELECT count(*) FROM stream_engine.reader_partition WHERE records + gaps <> next_offset - start_offset)),
	'0', 'accounted for');
is($new->safe_psql('db', q(SELECT sum(c) FROM (SELECT sum(a0) AS c FROM tumbling_live) t)), 2 * 8 * $sent, 'each record counts once');

# Whether the state of avg(interval) can be read is decided by its type.
my $types = q(SELECT aggtranstype::regtype FROM pg_aggregate WHERE aggfnoid = 'avg(interval)'::regprocedure);
my $changed = $new->safe_psql('db', $types) eq 'internal' && $old->pg_version < 17;
if ($changed)
{
	wait_for($new, q(SELECT state FROM stream_engine.queries WHERE name::text = 'intervals'), dbname => 'db', expected => 'error');
	like($new->safe_psql('db', q(SELECT error FROM stream_engine.queries WHERE name::text = 'intervals')),
		qr/was written in another format/, 'a query whose state cannot be read is set aside');
}
else
{
	$new->safe_psql('db', "CALL stream_engine.wait('intervals', '1 minute')");
	is($new->safe_psql('db', q(SELECT state FROM stream_engine.queries WHERE name::text = 'intervals')), 'running', 'avg(interval) goes on');
}

$new->stop('fast');
done_testing();
