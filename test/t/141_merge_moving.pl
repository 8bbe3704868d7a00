
# Rule: a query that is created while records keep coming is merged into the stream's
# reader, which moves on meanwhile, and has each record exactly once.

use strict;
use warnings FATAL => 'all';

use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $queries = long_run() ? 60 : 12;
my $node    = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
));

$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	CREATE TABLE enough (yes bool);
	CREATE SERVER source FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '4');
	SELECT stream_engine.create_stream('events', server => 'source', topic => 'events',
		columns => 'k int, t timestamptz', event_time => 't', watermark_delay => '1 hour',
		idle_timeout => '1 hour');
	-- a partition at a time, so that readers are ahead in one and behind in another
	CREATE PROCEDURE feed() LANGUAGE plpgsql AS $$
	DECLARE
		batch int := 0;
	BEGIN
		WHILE NOT EXISTS (SELECT FROM enough) LOOP
			INSERT INTO log SELECT batch % 4, batch / 4 * 50 + i, now(), NULL,
				convert_to(format('{"k": %s, "t": "%s"}', i % 5,
					timestamptz '2026-01-01 00:00+00' + batch * interval '1 ms'), 'UTF8')
			FROM generate_series(0, 49) i;
			COMMIT;
			batch := batch + 1;
		END LOOP;
	END $$;
));

my ($out, $err) = ('', '');
my $feed = start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'CALL feed()' ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(10 * $PostgreSQL::Test::Utils::timeout_default));
wait_for($node, q(SELECT count(*) > 5000 FROM log));
for my $i (1 .. $queries)
{
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_query('q$i', \$\$
			SELECT k, count(*) AS n FROM events GROUP BY tumble(t, '1 minute'), k \$\$)));
	my $at = $node->safe_psql('postgres', 'SELECT count(*) FROM log');
	wait_for($node, qq(SELECT count(*) > $at + 500 FROM log));
}
wait_for($node, q(SELECT count(*) > 0 FROM stream_engine.reader WHERE absorbed_by IS NOT NULL));
$node->safe_psql('postgres', 'INSERT INTO enough VALUES (true)');
$feed->finish;
is($err, '', 'records came all the time');
$node->safe_psql('postgres', q(CALL stream_engine.wait('events', '2 minutes')));

my $records = $node->safe_psql('postgres', 'SELECT count(*) FROM log');
is($node->safe_psql('postgres', 'SELECT sum(gaps) FROM stream_engine.stat_partitions'), 0, 'no record was passed over');
foreach my $i (1 .. $queries)
{
	is($node->safe_psql('postgres', "SELECT sum(n) FROM q${i}_live"), $records, "q$i has all records");
}
$node->stop;
done_testing();
