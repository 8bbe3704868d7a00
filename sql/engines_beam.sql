-- Rule: Beam's window and late data tests give here what they give there, as far as they say what is in
-- a window at its end: there are no triggers but the end of the window (and late records, and emit
-- => 'changes'), and results accumulate.  Beam does not join sessions that are exactly a gap apart.
\getenv src PG_ABS_SRCDIR
\set engines :src '/sql/engines.inc'
\set ECHO none
\i :engines
\set ECHO all

-- ReduceFnRunnerTest, TestStreamTest
INSERT INTO engine_case (id, source, win, agg, lateness, shows, steps, theirs, ours) VALUES
	(1, 'testCombiningAccumulatingEventTime', $$tumble(ts, '100 ms')$$, 'sum(v)', '1 ms', 'closed', '{2=2,5=5,<1000}', '{"null[0,100)=7"}', NULL),
	(2, 'testWatermarkHoldAndLateData', $$tumble(ts, '10 ms')$$, $$count(*) || '/' || sum(v)$$, '10 ms', 'closed',
		'{1=1,3=3,2=2,<4,2=2,3=3,5=5,4=4,<8,6=6,5=5,4=4,<10,8=8,<50}', '{"null[0,10)=11/43"}', NULL),
	(3, 'testWatermarkHoldAndLateData, and one after its garbage collection', $$tumble(ts, '10 ms')$$, $$count(*) || '/' || sum(v)$$, '10 ms', 'closed',
		'{1=1,<10,8=8,<19,7=7,<20,6=6,<50}', '{"null[0,10)=3/16",@6}', NULL),
	(4, 'testMergeBeforeFinalizing', $$session(ts, gap => '10 ms')$$, 'sum(v)', '0', 'closed', '{1=1,10=10,<100}', '{"null[1,20)=11"}', NULL),
	(5, 'testMergingWithReusedWindow: their trigger has finished, ours has none', $$session(ts, gap => '10 ms')$$, 'count(*)', '50 ms', 'closed',
		'{1=1,<15,1=1,<100}', '{"null[1,11)=1"}', '{"null[1,11)=2"}'),
	(6, 'testDropDataMultipleWindowsFinishedTrigger', $$hop(ts, '100 ms', every => '30 ms')$$, 'sum(v)', '0', 'closed',
		'{23=10,40=12,<70,60=14,<130,40=16}', '{"null[-60,40)=10","null[-30,70)=22","null[0,100)=36","null[30,130)=26",@40}', NULL),
	(7, 'TestStream: testLateDataAccumulating, in seconds', $$tumble(ts, '5 s')$$, $$count(*) || '/' || sum(v)$$, '5 s', 'closed',
		'{0=1,0=2,0=3,<6000,0=4,0=5,<20000,0=-1,0=-2,0=-3,<30000}', '{"null[0,5000)=5/15",@0,@0,@0}', NULL),
	(8, 'TestStream: testDiscardingMode, the sum of its panes', $$tumble(ts, '1 s')$$, 'count(*)', '5 s', 'closed', '{<0,100,200,500,<1000,750,250,<9000}',
		'{"null[0,1000)=5"}', NULL),
	(9, 'TestStream: testFirstElementLate', $$tumble(ts, '1 s')$$, 'count(*)', '5 s', 'closed', '{<0,-1000000,100,<9000}', '{"null[0,1000)=1",@-1000000}', NULL);

CALL make_cases();
CALL play_cases();
SELECT id, source, verdict, cardinality(got) AS rows, CASE WHEN verdict <> 'the same' THEN got END AS ours FROM verdict ORDER BY id;
-- "dropped due to closed window" is 1 for the record of 60 and 3 for the second one of 40
SELECT counted, late, late_assignments FROM stream_engine.stat_queries WHERE query = 'q6'::regclass;

-- CalendarWindowsTest
CREATE TABLE calendar (id int PRIMARY KEY, source text, win text, records timestamptz[], theirs tstzrange[]);
INSERT INTO calendar VALUES
	(1, 'testDays', $$tumble(ts, '1 day')$$, '{2014-01-01,2014-01-01 23:59,2014-01-02,2014-01-02 05:05,2015-01-01,2015-01-01 05:05}',
		'{"[2014-01-01,2014-01-02)","[2014-01-02,2014-01-03)","[2015-01-01,2015-01-02)"}'),
	(2, 'testWeeks, that begin on Wednesday', $$tumble(ts, '7 days', origin => '2014-01-01')$$,
		'{2014-01-01,2014-01-05 05:05,2014-01-08,2014-01-12 05:05,2015-01-01,2015-01-06 05:05}',
		'{"[2014-01-01,2014-01-08)","[2014-01-08,2014-01-15)","[2014-12-31,2015-01-07)"}'),
	(3, 'testMonths', $$tumble(ts, '1 month')$$, '{2014-01-01,2014-01-31 05:05,2014-02-01,2014-02-15 05:05,2015-01-01,2015-01-31 05:05}',
		'{"[2014-01-01,2014-02-01)","[2014-02-01,2014-03-01)","[2015-01-01,2015-02-01)"}'),
	(4, 'testMultiMonths', $$tumble(ts, '7 months', origin => '2014-03-05')$$, '{2014-03-05,2014-10-04 23:59,2014-10-05,2015-03-01,2016-01-05,2016-01-31 05:05}',
		'{"[2014-03-05,2014-10-05)","[2014-10-05,2015-05-05)","[2015-12-05,2016-07-05)"}'),
	(5, 'testYears; the last two before 2000, for 2052 would be in our future', $$tumble(ts, '10 years', origin => '2000-05-05')$$,
		'{2000-05-05,2010-05-04 23:59,2010-05-05,2015-03-01,1990-05-05,2000-05-04 05:05}',
		'{"[1990-05-05,2000-05-05)","[2000-05-05,2010-05-05)","[2010-05-05,2020-05-05)"}'),
	(6, 'testTimeZone', $$tumble(ts, '1 day', time_zone => 'America/Los_Angeles')$$, '{2014-01-01 08:00,2014-01-02 07:59,2014-01-02 08:00,2014-01-03 07:59}',
		'{"[2014-01-01 08:00,2014-01-02 08:00)","[2014-01-02 08:00,2014-01-03 08:00)"}'),
	(7, 'testDisplayData: five days from 1990-01-01 in Los Angeles, over a change of the clock', $$tumble(ts, '5 days', origin => '1990-01-01 08:00', time_zone => 'America/Los_Angeles')$$,
		'{1990-01-01 08:00,1990-01-06 07:59,1990-04-01 08:00,1990-04-05 12:00}', '{"[1990-01-01 08:00,1990-01-06 08:00)","[1990-04-01 08:00,1990-04-06 07:00)"}');
CREATE FUNCTION windows_of(id int) RETURNS tstzrange[] LANGUAGE plpgsql AS $$
DECLARE
	got tstzrange[];
BEGIN
	EXECUTE format('SELECT array_agg(tstzrange(window_start, window_end) ORDER BY window_start) FROM w%s', id) INTO got;
	RETURN got;
END $$;
DO $$
DECLARE
	c record;
BEGIN
	FOR c IN SELECT * FROM calendar ORDER BY id LOOP
		PERFORM stream_engine.create_stream('c' || c.id, server => 'engines_1', topic => make_topic('c' || c.id), columns => 'ts timestamptz',
			event_time => 'ts', watermark_delay => '20000 days', staging_retention => '0');
		PERFORM stream_engine.create_query('w' || c.id, format('SELECT count(*) AS n FROM c%s GROUP BY %s', c.id, c.win));
	END LOOP;
END $$;
INSERT INTO outbox (topic, value) SELECT 'c' || id, json_build_object('ts', r)::text FROM calendar, unnest(records) WITH ORDINALITY AS u (r, i) ORDER BY id, i;
CALL deliver();
\set ECHO errors
SELECT format('CALL stream_engine.wait(%L, ''1 minute'')', 'w' || id) FROM calendar ORDER BY id \gexec
\set ECHO all
DO $$ BEGIN PERFORM stream_engine.advance_watermark('c' || id, '2026-01-01') FROM calendar; END $$;
CALL until($$ min(watermark) >= '2026-01-01' FROM stream_engine.stat_queries WHERE query::text ~ '^w' $$);
SELECT source, got = theirs AS the_same, CASE WHEN got IS DISTINCT FROM theirs THEN got END AS but FROM calendar, windows_of(id) AS got ORDER BY id;

\set ECHO none
\set ends :src '/sql/engines_end.inc'
\i :ends
