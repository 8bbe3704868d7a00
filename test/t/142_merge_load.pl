
# Rule: a reader that reads its definition while another one hands a query over to it takes
# the query with all of its state, or not yet.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
));

plan skip_all => 'needs a build with failpoints'
  if $node->psql('postgres', 'SHOW stream_engine.failpoints') != 0;

$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea);
	CREATE SERVER log_server FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	CREATE FUNCTION send(first int, last int) RETURNS void LANGUAGE sql AS $$
		INSERT INTO log SELECT 0, n, NULL, NULL, convert_to(json_build_object('t', timestamptz '2026-01-05 00:00+00' + n * interval '1 s')::text, 'UTF8')
		FROM generate_series(first, last) AS n $$;
	SELECT send(0, 99);
	DO $$ BEGIN
		PERFORM stream_engine.create_stream('seconds', server => 'log_server', topic => 't', columns => 't timestamptz',
			event_time => 't', staging_retention => '0', watermark_delay => '0', idle_timeout => '1 hour');
		PERFORM stream_engine.create_query('first', 'SELECT count(*) AS n FROM seconds GROUP BY tumble(t, ''10 s'')');
	END $$));
wait_for_all($node, 'first');

# The reader's process passes twice, that of the second query's reader once before it is merged.
$node->append_conf('postgresql.conf', "stream_engine.failpoints = 'load.before_definition=sleep:6000\@2'");
$node->reload;
wait_for($node, q(SELECT setting <> '' FROM pg_settings WHERE name = 'stream_engine.failpoints'));
$node->safe_psql('postgres', q(SELECT stream_engine.alter_query('first', late => 'drop'); SELECT send(100, 194)));
wait_for_all($node, 'first');
my $position = log_position($node);
$node->safe_psql('postgres', q(SELECT stream_engine.alter_query('first', late => 'store')));
wait_for_log($node, qr/failpoint "load.before_definition" sleeps/, $position);

$position = log_position($node);
$node->safe_psql('postgres', q(DO $$ BEGIN PERFORM stream_engine.create_query('second', 'SELECT count(*) AS n FROM seconds GROUP BY tumble(t, ''20 s'')'); END $$));
wait_for_log($node, qr/has handed its queries over/, $position);

$node->append_conf('postgresql.conf', "stream_engine.failpoints = ''");
$node->reload;
$node->safe_psql('postgres', 'SELECT send(195, 299)');
foreach my $query (qw(first second))
{
	wait_for_all($node, $query);
	is_accounted($node, $query);
	is_verified($node, $query);
}
is($node->safe_psql('postgres', q(SELECT n FROM second WHERE window_start = '2026-01-05 00:03+00')),
	'20', 'a window that was open has all of its records');

$node->stop('fast');
done_testing();
