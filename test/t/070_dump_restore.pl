
# A dump carries definitions, results, late and dead rows, but no position: what is
# restored, or copied as a template, rests until it is resumed with a start.  A
# physical copy goes on from its own instant.  Commands that need a database without
# connections, and a dropped extension, get rid of running workers.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main', extension => 0, allows_streaming => 1, conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
));
my $mock      = mockd();
my $bootstrap = $mock->bootstrap;
$mock->create('t', 2);

my $dir = PostgreSQL::Test::Utils::tempdir('dump');

# A window of ten seconds with eight good records in each partition.
my $windows = 0;
sub produce_window
{
	foreach my $partition (0, 1)
	{
		$mock->produce('t', $partition, map { record($windows, $_) } 1 .. 8);
	}
	$windows++;
	return;
}

sub record
{
	my ($window, $i) = @_;
	return sprintf('{"k": "%s", "v": %d, "ts": "2025-01-01T%02d:%02d:%02dZ"}', (qw(a b))[ $i % 2 ], $i,
		$window / 360, $window / 6 % 60, $window % 6 * 10 + $i);
}

sub sql
{
	my ($dbname, $sql) = @_;
	return $node->safe_psql($dbname, $sql);
}

sub wait_for_query
{
	my ($dbname, $name) = @_;
	$node->safe_psql($dbname, "CALL stream_engine.wait('$name', '1 minute')");
	return;
}

sub is_complete
{
	my ($dbname, $when) = @_;
	wait_for_query($dbname, 'q');
	is(sql($dbname, 'SELECT count(*), sum(n), count(DISTINCT (window_start, k)) FROM q'),
		join('|', ($windows - 1) * 2, ($windows - 1) * 16, ($windows - 1) * 2), "$when: results are complete");
	is(sql($dbname, "SELECT count(*) FROM stream_engine.verify('q')"), '0', "$when: and verified");
	return;
}

sub readers
{
	my ($dbname) = @_;
	return qq(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'stream_engine reader%' AND datname = '$dbname');
}

# ---------------------------------------------------------------------------
# Dump and restore
# ---------------------------------------------------------------------------

sql('postgres', 'CREATE DATABASE source');
sql('source', qq(
	CREATE EXTENSION stream_engine;
	CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka
		OPTIONS (bootstrap_servers '$bootstrap', fetch_wait_max_ms '50');
	SELECT stream_engine.create_stream('s', server => 'kafka', topic => 't',
		columns => 'k text, v int CHECK (v > 0), ts timestamptz', event_time => 'ts', watermark_delay => '1 second',
		idle_timeout => '1 hour');
	SELECT stream_engine.create_query('q', \$\$ SELECT k, sum(v) AS total, count(*) AS n FROM s
		GROUP BY tumble(ts, '10 seconds'), k \$\$);
	SELECT stream_engine.create_query('kept', \$\$ SELECT k, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k \$\$,
		correction_horizon => '4000 days')));
produce_window() foreach 1 .. 4;
wait_for_query('source', 'q');
$mock->produce('t', 0, record(0, 1), '{"k": "a", "v": -1, "ts": "2025-01-01T00:00:00Z"}', 'bad');
is_complete('source', 'before the dump');
wait_for_query('source', 'kept');
my $before = sql('source', 'TABLE q ORDER BY 1, 3');

foreach my $format (qw(plain custom))
{
	my $copy = "copy_$format";
	my $file = "$dir/$format.dump";
	my $log  = log_position($node);

	$node->command_ok([ 'pg_dump', '-F', $format, '-f', $file, '-d', $node->connstr('source') ], "$format: pg_dump");
	sql('postgres', "CREATE DATABASE $copy");
	$node->command_ok(
		$format eq 'plain'
		? [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $file, '-d', $node->connstr($copy) ]
		: [ 'pg_restore', '--exit-on-error', '-d', $node->connstr($copy), $file ],
		"$format: restored without an error");

	is(sql($copy, 'SELECT state FROM stream_engine.streams UNION ALL SELECT state FROM stream_engine.queries'),
		"restored\nrestored\nrestored", "$format: stream and queries are restored");
	is(sql($copy, 'TABLE q ORDER BY 1, 3'), $before, "$format: results are there");
	is(sql($copy, 'SELECT partition, "offset", record FROM stream_engine.late_events ORDER BY 1, 2'),
		sql('source', 'SELECT partition, "offset", record FROM stream_engine.late_events ORDER BY 1, 2'), "$format: late records");
	is(sql($copy, 'SELECT partition, "offset", reason, record FROM stream_engine.dead_letters ORDER BY 1, 2'),
		sql('source', 'SELECT partition, "offset", reason, record FROM stream_engine.dead_letters ORDER BY 1, 2'), "$format: dead letters");
	is(sql($copy, 'SELECT (SELECT count(*) FROM stream_engine.reader), (SELECT count(*) FROM stream_engine.state_log),
		(SELECT count(*) FROM stream_engine.ledger)'), '0|0|0', "$format: no positions, no state");
	is(sql($copy, 'SELECT count(*) FROM s'), ($windows * 16 + 1), "$format: the stream can be scanned");
	my ($rc, $out, $err) = $node->psql($copy, "SELECT stream_engine.resume('s')");
	like($err, qr/has no position here.*start/s, "$format: resume() wants a start");
	($rc, $out, $err) = $node->psql($copy, "CALL stream_engine.wait('q', '1 minute')");
	like($err, qr/q does not go on: it comes from a dump or a template/, "$format: wait() does not wait");
	is(sql($copy, "SELECT count(*) FROM stream_engine.why('q') WHERE finding LIKE '%restored%'"), '1', "$format: why() says so");

	# The original and the copy are apart from now on.
	produce_window();
	is_complete('source', "$format: the original goes on");
	is(sql('postgres', readers($copy)), '0', "$format: nobody reads for the copy");
	is(sql($copy, 'TABLE q ORDER BY 1, 3'), $before, "$format: the copy rests");
	my $late = 'SELECT count(*) FROM stream_engine.late_events';
	my $before_resume = sql($copy, $late);
	cmp_ok($before_resume, '>', 0, "$format: there are late records");
	sql($copy, sprintf(q(SELECT stream_engine.resume('s', start => '%s')), $format eq 'plain' ? 'latest' : 'earliest'));
	is(sql($copy, "SELECT stream_engine.retry_late('kept')"), '0', "$format: late records of before have no windows to be counted in");
	produce_window() foreach 1 .. 3;
	wait_for_query($copy, $_) foreach qw(q kept);
	is(sql($copy, "SELECT stream_engine.retry_late('kept')"), '0', "$format: nor when the topic has been read");
	is(sql($copy, $late), $before_resume, "$format: they stay");
	is(sql($copy, "SELECT count(*) FROM stream_engine.verify('kept')"), '0', "$format: and verify() knows what has been counted");
	is(sql($copy, 'SELECT DISTINCT state FROM stream_engine.queries'), 'running', "$format: it runs when it is resumed");
	is(sql($copy, "SELECT count(*) FROM stream_engine.verify('q')"), '0', "$format: and is verified");
	cmp_ok(sql($copy, 'SELECT max(window_start) FROM q'), 'gt', sql($copy, q(SELECT max(window_start) FROM q WHERE window_start < '2025-01-01 00:00:40+00')), "$format: with new windows");
	is(sql($copy, 'SELECT count(*) - count(DISTINCT (window_start, k)) FROM q'), '0', "$format: none twice");
	is_complete('source', "$format: and so does the original");
	$before = sql('source', 'TABLE q ORDER BY 1, 3');
}

# Into the database that it was made from, too, a dump brings no positions.
{
	my $copy = 'copy_custom';
	my $file = "$dir/again.dump";

	$node->command_ok([ 'pg_dump', '-F', 'custom', '-f', $file, '-d', $node->connstr($copy) ], 'back: pg_dump');
	$node->command_ok([ 'pg_restore', '--clean', '--if-exists', '--exit-on-error', '-d', $node->connstr($copy), $file ],
		'back: restored over itself');
	is(sql($copy, 'SELECT DISTINCT state FROM (SELECT state FROM stream_engine.streams UNION ALL SELECT state FROM stream_engine.queries) s'),
		'restored', 'back: stream and queries are restored');
	my ($rc, $out, $err) = $node->psql($copy, "CALL stream_engine.wait('q', '1 minute')");
	like($err, qr/q does not go on: it comes from a dump or a template/, 'back: wait() does not wait');
	sql($copy, "SELECT stream_engine.resume('s', start => 'earliest')");
	produce_window();
	wait_for_query($copy, 'q');
	is(sql($copy, 'SELECT DISTINCT state FROM stream_engine.queries'), 'running', 'back: it runs when it is resumed');
	is(sql($copy, 'SELECT max(window_start) FROM q'), sql($copy, "SELECT max(window_start) FROM q_batch WHERE window_end <= (SELECT closed_through FROM stream_engine.stat_queries WHERE query = 'q'::regclass)"),
		'back: with new windows');
	is(sql($copy, 'SELECT count(*) - count(DISTINCT (window_start, k)) FROM q'), '0', 'back: none twice');
}

# A restored stream is dropped as any other.
sql('copy_plain', "SELECT stream_engine.drop_stream('s', true)");
is(sql('copy_plain', q(SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class c JOIN pg_depend d ON d.objid = c.oid
	WHERE relkind IN ('r', 'v', 'f') AND relnamespace IN ('public'::regnamespace, 'stream_engine'::regnamespace)
	AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = c.oid AND e.deptype = 'e'))), '', 'a restored stream is dropped with all its relations');
wait_for($node, readers('copy_plain'), expected => '0');
sql('copy_plain', 'DROP EXTENSION stream_engine CASCADE');
is(sql('copy_plain', q(SELECT count(*) FROM pg_namespace WHERE nspname = 'stream_engine')), '0', 'and the extension after it');

# ---------------------------------------------------------------------------
# Databases
# ---------------------------------------------------------------------------

wait_for($node, 'SELECT (' . readers('source') . ') > 0');
sql('postgres', 'CREATE DATABASE clone TEMPLATE source');
pass('a database with running workers serves as a template');
is(sql('clone', 'SELECT state FROM stream_engine.streams UNION ALL SELECT state FROM stream_engine.queries'), "restored\nrestored\nrestored", 'the clone rests');
produce_window();
is_complete('source', 'after it was a template');
is(sql('postgres', readers('clone')), '0', 'nobody reads for the clone');
sql('clone', "SELECT stream_engine.resume('s', start => 'latest')");
produce_window() foreach 1 .. 2;
wait_for_query('clone', 'q');
is(sql('clone', "SELECT count(*) FROM stream_engine.verify('q')"), '0', 'the clone runs when it is resumed');
is_complete('source', 'beside the clone');

sql('postgres', 'ALTER DATABASE clone RENAME TO renamed');
is(sql('renamed', 'SELECT DISTINCT state FROM stream_engine.queries'), 'running', 'a renamed database is the same one');
produce_window();
wait_for_query('renamed', 'q');
sql('postgres', 'DROP DATABASE renamed');
pass('a database with running workers is dropped');
wait_for($node, q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'stream_engine reader%' AND datname NOT IN ('source', 'copy_custom')), expected => '0');

sql('copy_custom', 'DROP EXTENSION stream_engine CASCADE');
wait_for($node, readers('copy_custom'), expected => '0');
is(sql('copy_custom', q(SELECT count(*) FROM pg_class WHERE relkind = 'f')), '0', 'DROP EXTENSION CASCADE drops streams');
is(sql('copy_custom', q(SELECT count(*) > 0 FROM q)), 't', 'and leaves results');
sql('copy_custom', 'CREATE EXTENSION stream_engine');
sql('postgres', 'DROP DATABASE copy_custom');

# ---------------------------------------------------------------------------
# A standby
# ---------------------------------------------------------------------------

$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
produce_window() foreach 1 .. 2;
is_complete('source', 'with a standby');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('source', 'SELECT k, window_start, total, n, is_final FROM q_live ORDER BY 2, 1'),
	sql('source', 'SELECT k, window_start, total, n, is_final FROM q_live ORDER BY 2, 1'), 'the standby shows the same closed and open windows');
is($standby->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'stream_engine (reader|manager)')), '0', 'no worker runs on a standby');

$node->stop('immediate');
produce_window();
$standby->promote;
$node = $standby;
produce_window();
is_complete('source', 'promoted');
is(sql('source', q(SELECT count(*) FROM stream_engine.reader_partition WHERE records + gaps <> next_offset - start_offset)), '0', 'promoted: accounted for');
my @errors = grep { /PANIC|TRAP|was terminated by signal/ } split /\n/, log_since($node, 0);
is("@errors", '', 'the log has no crash');

$node->stop('fast');
done_testing();
