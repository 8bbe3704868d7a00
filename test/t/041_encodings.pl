
# Records are UTF-8 whatever the encoding of the database: what it can hold becomes values, a
# record with a character that it can't hold is a bad one, and none stops the stream.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main');
my @records = (
	'"k": "\u00e9a", "v": "\u00e9\u00e9\u00e9", "j": {"x": "\u00e9"}, "a": ["\u00e9"]',
	qq("k": "\xc3\xa9a", "v": "\xc3\xa9", "j": {"x": "\xc3\xa9"}, "a": ["\xc3\xa9"]),
	qq("k": "\xe2\x82\xac"), '"k": "\u20ac"', '"k": "b", "j": {"x": "\u20ac"}', '"k": "b", "js": {"x": "\u20ac"}',
	qq("k": "b", "other": "\xe2\x82\xac"), qq("k": "b", "other": "\xff"), qq("k": "b", "a": ["\xe2\x82\xac"]));

sub run_in
{
	my ($encoding) = @_;
	my $dbname = lc $encoding;
	my $n = @records;
	my $at = '"at": "2026-01-05T00:00Z"';
	my $offset = 0;

	$node->safe_psql('postgres', "CREATE DATABASE $dbname ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	$node->safe_psql($dbname, q(
		CREATE EXTENSION stream_engine;
		CREATE TABLE log (partition int, "offset" bigint PRIMARY KEY, timestamp timestamptz, key bytea, value bytea);
		CREATE SERVER logs FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'public.log', partitions '1');
		SELECT stream_engine.create_stream('s', server => 'logs', topic => 's', event_time => 'at', watermark_delay => '0',
			columns => 'at timestamptz, k text, v varchar(3), j jsonb, js json, a text[]');
		SELECT stream_engine.create_query('q',
			'SELECT k, count(*) AS n, max(v) AS v, min(j::text) AS j FROM s GROUP BY tumble(at, ''1 hour''), k')));
	$node->safe_psql($dbname, join ';', map
		{ "INSERT INTO log VALUES (0, " . $offset++ . ", NULL, NULL, '\\x" . unpack('H*', $_) . "')" }
		(map { "{$at, $_}" } @records), '{"at": "2026-01-05T01:00Z"}');
	wait_for($node, "SELECT bool_and(records = $n + 1) FROM stream_engine.stat_partitions", dbname => $dbname);
	wait_for($node, 'SELECT count(*) > 0 FROM q', dbname => $dbname);
	is($node->safe_psql($dbname, q(SELECT problem FROM stream_engine.verify('q'))), '', "$encoding: verified");
	return $node->safe_psql($dbname, q(
		SELECT string_agg(encode(convert_to(k, current_setting('server_encoding')), 'escape') || '=' || n, ' ' ORDER BY k COLLATE "C") FROM q
		UNION ALL
		SELECT string_agg("offset" || ' ' || sqlstate, ', ' ORDER BY "offset") FROM stream_engine.dead_letters));
}

is(run_in('UTF8'), 'b=4 \303\251a=2 \342\202\254=2' . "\n" . '7 22021', 'UTF8 holds them all');
is(run_in('LATIN1'), 'b=2 \351a=2' . "\n" . '2 22P05, 3 22P05, 4 22P05, 7 22021, 8 22P05', 'LATIN1 has no euro sign');
# Until 15 the server's own jsonb says that it does not support the character.
like(run_in('SQL_ASCII'), qr/^b=3 \\303\\251a=1 \\342\\202\\254=2\n0 22001, 4 (?:22P05|0A000), 7 22021$/,
	'SQL_ASCII takes bytes, and cannot write what only an escape tells');
$node->stop;
done_testing();
