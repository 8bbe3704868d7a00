/*
 * json_test.cpp
 *	  Tests of the JSON scanner and of the scalar conversions, without a server.
 *	  Output is TAP.
 */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "source/json_core.h"
#include "source/json_scalar.h"

#include "json_reference.h"

static int tests;
static int failures;

static void
ok(bool good, const std::string &name)
{
	tests++;
	failures += !good;
	printf("%sok %d - %s\n", good ? "" : "not ", tests, name.c_str());
}

static void
is(const std::string &got, const std::string &wanted, const std::string &name)
{
	ok(got == wanted, name);
	if (got != wanted)
		printf("#      got: %s\n# expected: %s\n", got.c_str(), wanted.c_str());
}

/* "kind:text" of a value. */
static std::string
show(const SeJsonValue *value)
{
	static const char *const kinds[] = {"missing", "null",   "false", "true",
										"number",  "string", "array", "object"};
	std::string result = kinds[value->kind];
	std::string text;

	if (value->kind < SE_JSON_NUMBER)
		return result;
	if (value->escaped)
	{
		SeJsonError error;
		std::vector<char> buffer(value->len + 1);
		int len = se_json_unescape(value->data, value->len, buffer.data(), &error);

		if (len < 0)
			return result + ":error " + std::to_string(error);
		text = std::string(buffer.data(), len);
	}
	else
		text = std::string(value->data, value->len);
	return result + ":" + text;
}

/* A scanner for some paths; a path without '$' is the name of a member. */
struct Scanner
{
	SeJson *json = se_json_create();
	std::vector<int> slots;
	SeJsonStatus status[SE_BATCH_MAX];
	std::string packed;

	explicit Scanner(const std::vector<std::string> &paths)
	{
		for (const std::string &path : paths)
		{
			const char *message;
			int position;

			slots.push_back(path[0] == '$'
								? se_json_add_path(json, path.c_str(), &message, &position)
								: se_json_add_member(json, path.c_str()));
		}
	}
	~Scanner() { se_json_destroy(json); }

	/* Copied by the scanner, and then as a source may deliver them: that is looked at. */
	void run(const std::vector<std::string> &texts)
	{
		std::vector<SeRecord> records(texts.size());
		std::vector<std::string> copied;
		size_t at = 0;

		for (size_t i = 0; i < texts.size(); i++)
		{
			records[i] = {};
			records[i].payload = texts[i].data();
			records[i].payload_len = (int32_t) texts[i].size();
		}
		if (!se_json_run(json, records.data(), (int) records.size(), status))
			abort();
		for (size_t i = 0; i < texts.size(); i++)
			copied.push_back(row((int) i));

		packed.clear();
		for (const std::string &text : texts)
			packed += text + '\n';
		packed.append(SE_JSON_PADDING, '"');
		for (size_t i = 0; i < texts.size(); i++)
		{
			records[i].payload = packed.data() + at;
			records[i].flags = SE_RECORD_PACKED;
			at += texts[i].size() + 1;
		}
		if (!se_json_run(json, records.data(), (int) records.size(), status))
			abort();
		for (size_t i = 0; i < texts.size(); i++)
		{
			if (row((int) i) == copied[i])
				continue;
			printf("# differs when packed: %s\n", texts[i].c_str());
			abort();
		}
	}

	/* All values of a row, or its error. */
	std::string row(int row) const
	{
		std::string result;

		if (status[row].error != SE_JSON_OK)
			return "error " + std::to_string(status[row].error) + " at " +
				std::to_string(status[row].position);
		for (int slot : slots)
			result += (result.empty() ? "" : " | ") + show(&se_json_values(json, slot)[row]);
		return result;
	}

	std::string one(const std::string &text)
	{
		run({text});
		return row(0);
	}
};

static std::string
error(SeJsonError code, int position)
{
	return "error " + std::to_string(code) + " at " + std::to_string(position);
}

static void
test_values()
{
	Scanner s({"a", "$.b.c", "$.l[1]", "$['a b'].\"c.d\"", "$.b"});

	is(s.one("{}"), "missing | missing | missing | missing | missing", "empty object");
	is(s.one(" {\t\"a\" :\r\n 1 } "), "number:1 | missing | missing | missing | missing",
	   "white space");
	is(s.one("{\"a\":\"x\",\"b\":{\"c\":true},\"l\":[1,null,3],\"a b\":{\"c.d\":-1.5e+3}}"),
	   "string:x | true | null | number:-1.5e+3 | object:{\"c\":true}", "paths");
	is(s.one("{\"a\":{\"c\":1},\"b\":[{\"c\":2}],\"l\":{\"1\":3}}"),
	   "object:{\"c\":1} | missing | missing | missing | array:[{\"c\":2}]",
	   "kinds that the path does not expect");
	is(s.one("{\"a\":1,\"a\":\"two\"}"), "string:two | missing | missing | missing | missing",
	   "of duplicates the last");
	is(s.one("{\"b\":{\"c\":1},\"b\":{\"d\":2}}"),
	   "missing | missing | missing | missing | object:{\"d\":2}",
	   "a duplicate replaces all below");
	is(s.one("{\"b\":{\"c\":1},\"b\":3}"), "missing | missing | missing | missing | number:3",
	   "a scalar replaces an object");
	is(s.one("{\"l\":[0,[1,2]],\"x\":{\"a\":5,\"b\":{\"c\":6}}}"),
	   "missing | missing | array:[1,2] | missing | missing",
	   "same names elsewhere do not count");
	is(s.one("{\"\\u0061\":1}"), "number:1 | missing | missing | missing | missing",
	   "escaped name");
	is(s.one("{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"}"),
	   "string:\"\\/\b\f\n\r\t\xc3\xa9\xf0\x9f\x98\x80 | missing | missing | missing | missing",
	   "escapes");
	is(s.one("{\"a\":\"\\u0000\"}"),
	   "string:error " + std::to_string(SE_JSON_NUL) + " | missing | missing | missing | missing",
	   "zero character");
	for (const char *bad :
		 {"\\ud800", "\\ud800x", "\\ud800\\n", "\\ud800\\ud800", "\\udc00", "\\ud800\\u0041"})
		is(s.one(std::string("{\"a\":\"") + bad + "\"}"),
		   "string:error " + std::to_string(SE_JSON_SURROGATE) +
			   " | missing | missing | missing | missing",
		   std::string("surrogate ") + bad);
	is(s.one("{\"x\":\"\\ud800\"}"), "missing | missing | missing | missing | missing",
	   "surrogate in a field nobody reads");
	is(s.one("{\"a\":\"\"}"), "string: | missing | missing | missing | missing", "empty string");

	Scanner whole({"$", "$[0]", ""});

	is(whole.one("{\"\":[1]}"), "object:{\"\":[1]} | missing | array:[1]",
	   "the record itself, the empty name");

	Scanner names({"12345678", "123456789", "12345678x", "1234567"});

	is(names.one(
		   "{\"123456789\":1,\"12345678\":2,\"1234567\":3,\"123456780\":4,\"12345678x\":5}"),
	   "number:2 | number:1 | number:5 | number:3", "names of eight bytes and around");
}

static void
test_errors()
{
	static const struct
	{
		const char *text;
		SeJsonError error;
		int position;
	} cases[] = {{"", SE_JSON_EMPTY, 0},
				 {" \n", SE_JSON_EMPTY, 0},
				 {"[]", SE_JSON_NOT_OBJECT, 0},
				 {"1", SE_JSON_NOT_OBJECT, 0},
				 {" \"x\"", SE_JSON_NOT_OBJECT, 1},
				 {"\xef\xbb\xbf{}", SE_JSON_NOT_OBJECT, 0},
				 {"{", SE_JSON_TRUNCATED, 1},
				 {"{\"a\"", SE_JSON_TRUNCATED, 4},
				 {"{\"a\":", SE_JSON_TRUNCATED, 5},
				 {"{\"a\":1", SE_JSON_TRUNCATED, 6},
				 {"{\"a\":[", SE_JSON_TRUNCATED, 6},
				 {"{\"a", SE_JSON_UNTERMINATED, 1},
				 {"{\"a\":\"x\\\"}", SE_JSON_UNTERMINATED, 5},
				 {"{\"a\":\"\n\"}", SE_JSON_CONTROL, 6},
				 {"{\"a\":\"\\\n\"}", SE_JSON_CONTROL, 7},
				 {"{\"a\":\"\xff\"}", SE_JSON_UTF8, 6},
				 {"{\"a\":\"\xc3\"}", SE_JSON_UTF8, 6},
				 {"{\"a\":\"\xed\xa0\x80\"}", SE_JSON_UTF8, 6},
				 {"{\"a\":\"\xc0\x80\"}", SE_JSON_UTF8, 6},
				 {"{\"a\":\"\xf4\x90\x80\x80\"}", SE_JSON_UTF8, 6},
				 {"{a:1}", SE_JSON_EXPECT_KEY, 1},
				 {"{1:1}", SE_JSON_EXPECT_KEY, 1},
				 {"{\"a\":1,}", SE_JSON_EXPECT_KEY, 7},
				 {"{,}", SE_JSON_EXPECT_KEY, 1},
				 {"{\"a\" 1}", SE_JSON_EXPECT_COLON, 5},
				 {"{\"a\"x:1}", SE_JSON_EXPECT_COLON, 4},
				 {"{\"a\"}", SE_JSON_EXPECT_COLON, 4},
				 {"{\"a\":}", SE_JSON_EXPECT_VALUE, 5},
				 {"{\"a\":,}", SE_JSON_EXPECT_VALUE, 5},
				 {"{\"a\":+1}", SE_JSON_EXPECT_VALUE, 5},
				 {"{\"a\":.5}", SE_JSON_EXPECT_VALUE, 5},
				 {"{\"a\":NaN}", SE_JSON_EXPECT_VALUE, 5},
				 {"{\"a\":[,1]}", SE_JSON_EXPECT_VALUE, 6},
				 {"{\"a\":[1,]}", SE_JSON_EXPECT_VALUE, 8},
				 {"{\"a\":1 2}", SE_JSON_EXPECT_COMMA, 7},
				 {"{\"a\":[1 2]}", SE_JSON_EXPECT_COMMA, 8},
				 {"{\"a\":[1}", SE_JSON_EXPECT_COMMA, 7},
				 {"{\"a\":1]", SE_JSON_EXPECT_COMMA, 6},
				 {"{\"a\":\"x\"\"y\"}", SE_JSON_EXPECT_COMMA, 8},
				 {"{\"a\":\"x\"y}", SE_JSON_EXPECT_COMMA, 8},
				 {"{\"a\":01}", SE_JSON_NUMBER_SYNTAX, 5},
				 {"{\"a\":1.}", SE_JSON_NUMBER_SYNTAX, 5},
				 {"{\"a\":1e}", SE_JSON_NUMBER_SYNTAX, 5},
				 {"{\"a\":-}", SE_JSON_NUMBER_SYNTAX, 5},
				 {"{\"a\":1e+}", SE_JSON_NUMBER_SYNTAX, 5},
				 {"{\"a\":0x10}", SE_JSON_NUMBER_SYNTAX, 5},
				 {"{\"a\":1\"b\"}", SE_JSON_NUMBER_SYNTAX, 5},
				 {"{\"a\":-Infinity}", SE_JSON_NUMBER_SYNTAX, 5},
				 {"{\"a\":tru}", SE_JSON_LITERAL, 5},
				 {"{\"a\":truex}", SE_JSON_LITERAL, 5},
				 {"{\"a\":nul}", SE_JSON_LITERAL, 5},
				 {"{\"a\":falsy}", SE_JSON_LITERAL, 5},
				 {"{\"a\":\"\\q\"}", SE_JSON_ESCAPE, 6},
				 {"{\"a\":\"\\u12g4\"}", SE_JSON_ESCAPE, 6},
				 {"{\"a\":\"\\u123\"}", SE_JSON_ESCAPE, 6},
				 {"{\"\\x\":1}", SE_JSON_ESCAPE, 2},
				 {"{\"x\":[\"\\q\"]}", SE_JSON_ESCAPE, 7},
				 {"{} {}", SE_JSON_TRAILING, 3},
				 {"{}x", SE_JSON_TRAILING, 2},
				 {"{}}", SE_JSON_TRAILING, 2},
				 {"{}\\", SE_JSON_TRAILING, 2}};
	Scanner s({"a"});

	for (const auto &c : cases)
	{
		std::string name = c.text;

		for (char &b : name)
		{
			if ((unsigned char) b < 0x20 || (unsigned char) b > 0x7e || b == '#')
				b = '?';
		}
		is(s.one(c.text), error(c.error, c.position), "error in " + name);

		/* in the middle of a batch, good neighbours are not harmed */
		s.run({"{\"a\":1}", c.text, "{\"a\":2}", c.text, c.text, "{\"a\":3}"});
		ok(s.row(0) == "number:1" && s.row(2) == "number:2" && s.row(5) == "number:3" &&
			   s.row(1) == error(c.error, c.position) && s.row(4) == s.row(1),
		   "neighbours of " + name);
	}
	is(s.one(std::string("\0\0\0\0\1{}", 7)), error(SE_JSON_FRAMED, 0), "framed by a registry");
	is(s.one(std::string("\0\xff\xff\"", 4)), error(SE_JSON_FRAMED, 0), "framed, and not UTF-8");
}

static void
test_depth()
{
	Scanner s({"a"});
	std::string open = "{\"a\":" + std::string(999, '[') + std::string(999, ']') + "}";

	ok(s.one(open).substr(0, 6) == "array:", "deepest nesting");
	is(s.one("{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}"),
	   error(SE_JSON_DEPTH, 1004), "too deep");
	is(s.one("{\"a\":" + std::string(100000, '[')), error(SE_JSON_DEPTH, 1004),
	   "far too deep, and truncated");

	std::string path = "$";

	for (int i = 0; i < 500; i++)
		path += ".a[0]";
	Scanner deep({path});
	std::string text = "1";

	for (int i = 0; i < 499; i++)
		text = "{\"a\":[" + text + "]}";
	is(deep.one("{\"a\":[" + text + "]}"), "number:1", "path of a thousand steps");
}

/* Every prefix of a record is bad; prefixes in one batch as alone. */
static void
test_truncation()
{
	const std::string text =
		"{\"a\":\"x\\u00e9\xc3\xa9\\\\\",\"b\":[1.5e3,{\"c\":null,\"d\":[]}],\"e\":{},\"f\":true,\"g\":-0}";
	Scanner s({"a", "$.b[1].c", "g"});
	std::vector<std::string> all;
	bool bad = true;
	bool same = true;

	for (size_t i = 0; i < text.size(); i++)
	{
		all.push_back(text.substr(0, i));
		bad = bad && s.one(all.back()).substr(0, 5) == "error";
	}
	all.push_back(text);
	ok(bad, "every truncation is bad");

	std::vector<std::string> alone;

	for (const std::string &t : all)
		alone.push_back(s.one(t));
	s.run(all);
	for (size_t i = 0; i < all.size(); i++)
		same = same && s.row((int) i) == alone[i];
	ok(same, "truncations in one batch as alone");
	is(s.row((int) text.size()), "string:x\xc3\xa9\xc3\xa9\\ | null | number:-0",
	   "the whole record");
}

/* Each byte replaced by each other: valid or not as the reference says. */
static void
test_mutation()
{
	const std::string text =
		"{\"a\": [-1.0E+2,\"\\u00e9\\n\"], \"b\":{\"c\":false},\"a\":\"\xe2\x82\xac\" }";
	Scanner s({"a"});
	int different = 0;

	for (size_t i = 0; i < text.size(); i++)
	{
		std::vector<std::string> batch;

		for (int b = 0; b < 256; b++)
		{
			batch.push_back(text);
			batch.back()[i] = (char) b;
		}
		s.run(batch);
		for (int b = 0; b < 256; b++)
		{
			JsonReference reference(batch[b], "a");
			const SeJsonValue *value = &se_json_values(s.json, s.slots[0])[b];

			if ((s.status[b].error == SE_JSON_OK) != reference.valid ||
				(reference.valid && reference.found != (value->kind != SE_JSON_MISSING)))
				different++;
		}
	}
	ok(different == 0, "mutations are judged as by the reference");
}

static void
test_batches()
{
	Scanner s({"a"});
	std::vector<std::string> texts;
	bool good = true;

	/* sizes that cross chunks, and records larger than one */
	for (int i = 0; i < SE_BATCH_MAX; i++)
		texts.push_back("{\"pad\":\"" + std::string(i % 97 == 0 ? 70000 : i % 311, 'x') +
						"\",\"a\":" + std::to_string(i) + "}");
	for (int round = 0; round < 3; round++)
	{
		s.run(texts);
		for (int i = 0; i < SE_BATCH_MAX; i++)
			good = good && s.row(i) == "number:" + std::to_string(i);
	}
	ok(good, "a full batch of all sizes");

	SeRecord records[3] = {};

	records[1].payload = "{\"a\":7}";
	records[1].payload_len = 7;
	ok(se_json_run(s.json, records, 3, s.status) && s.row(0) == "missing" &&
		   s.row(1) == "number:7" && s.row(2) == "missing",
	   "tombstones");
	ok(se_json_run(s.json, records, 1, s.status) && se_json_run(s.json, records, 0, s.status),
	   "a batch of nothing");
}

static void
test_paths()
{
	static const struct
	{
		const char *path;
		int position; /* -1: good */
	} cases[] = {{"$", -1},
				 {"$.a", -1},
				 {"$.a.b", -1},
				 {"$['a']", -1},
				 {"$[\"a\"]", -1},
				 {"$.\"a\"", -1},
				 {"$.a[0][12].b", -1},
				 {"$.a-b.@c.$d", -1},
				 {"$['it\\'s']", -1},
				 {"$.\xc3\xa9", -1},
				 {"$['']", -1},
				 {"", 0},
				 {"a", 0},
				 {".a", 0},
				 {"$a", 1},
				 {"$.", 1},
				 {"$..a", 1},
				 {"$.a.", 3},
				 {"$[", 1},
				 {"$[]", 1},
				 {"$[-1]", 1},
				 {"$[*]", 1},
				 {"$.*", 1},
				 {"$['a", 1},
				 {"$['a'", 1},
				 {"$[1", 1},
				 {"$[99999999999]", 1},
				 {"$.a b", 3},
				 {"$.a[?(@.x)]", 3},
				 {"$.\"a", 1},
				 {"$['a\\", 1}};

	for (const auto &c : cases)
	{
		SeJson *json = se_json_create();
		const char *message;
		int position;
		int slot = se_json_add_path(json, c.path, &message, &position);

		ok(c.position < 0 ? slot == 0 : slot < 0 && message != NULL && position == c.position,
		   std::string("path ") + c.path);
		se_json_destroy(json);
	}

	Scanner s({"$.a", "a", "$['a']", "$.b"});

	ok(s.slots[0] == s.slots[1] && s.slots[1] == s.slots[2] && s.slots[3] != s.slots[0],
	   "equal paths share a slot");
}

static std::string
int64_of(const std::string &s)
{
	int64_t result;

	switch (se_scalar_int64(s.data(), (int) s.size(), &result))
	{
		case SE_SCALAR_OK:
			return std::to_string(result);
		case SE_SCALAR_RANGE:
			return "range";
		case SE_SCALAR_FRACTION:
			return "fraction";
		default:
			return "other";
	}
}

static std::string
decimal_of(const std::string &s)
{
	SeDecimal result;

	if (se_scalar_decimal(s.data(), (int) s.size(), &result) != SE_SCALAR_OK)
		return "other";
	return std::to_string(result.mantissa) + "/" + std::to_string(result.scale);
}

static std::string
epoch_of(const std::string &s, int digits)
{
	int64_t result;

	switch (se_scalar_epoch(s.data(), (int) s.size(), digits, &result))
	{
		case SE_SCALAR_OK:
			return std::to_string(result);
		case SE_SCALAR_RANGE:
			return "range";
		default:
			return "other";
	}
}

static std::string
time_of(const std::string &s, bool zone = true)
{
	int64_t result;

	return se_scalar_timestamp(s.data(), (int) s.size(), zone, &result) == SE_SCALAR_OK
		? std::to_string(result)
		: "other";
}

static void
test_scalars()
{
	static const struct
	{
		const char *text;
		const char *result;
	} integers[] = {{"0", "0"},
					{"-0", "0"},
					{"7", "7"},
					{"-42", "-42"},
					{"999999999999999999", "999999999999999999"},
					{"9223372036854775807", "9223372036854775807"},
					{"9223372036854775808", "range"},
					{"-9223372036854775808", "-9223372036854775808"},
					{"-9223372036854775809", "range"},
					{"1e3", "1000"},
					{"1E+18", "1000000000000000000"},
					{"1e19", "range"},
					{"15.0", "15"},
					{"1.50e1", "15"},
					{"1.5", "fraction"},
					{"100e-2", "1"},
					{"100e-3", "fraction"},
					{"0.0", "0"},
					{"0e999999999999", "0"},
					{"1e-999999999999", "fraction"},
					{"1e999999999999", "range"},
					{"0.00000000000000000000000000000000001e35", "1"},
					{"92233720368547758.07e2", "9223372036854775807"},
					{"99999999999999999999999999999999999999999999", "range"},
					{"", "other"},
					{"-", "other"},
					{"abc", "other"},
					{"1x", "other"}};
	static const struct
	{
		const char *text;
		const char *result;
	} decimals[] = {{"0", "0/0"},
					{"1.50", "150/2"},
					{"-0.001", "-1/3"},
					{"1e3", "1000/0"},
					{"1.5e1", "15/0"},
					{"1.50e1", "150/1"},
					{"1e-5", "1/5"},
					{"0.00", "0/2"},
					{"-0.0", "0/1"},
					{"0e30", "0/0"},
					{"999999999999999999", "999999999999999999/0"},
					{"1000000000000000000", "other"},
					{"0.123456789012345678", "123456789012345678/18"},
					{"0.1234567890123456789", "other"},
					{"1e17", "100000000000000000/0"},
					{"1e18", "other"},
					{"99999999999999999999999999", "other"},
					{"1e-18", "1/18"},
					{"1e-19", "other"}};
	static const struct
	{
		const char *text;
		int precision;
		int scale;
		const char *result;
	} typmods[] = {{"12.345", 10, 2, "1235/2"},
				   {"-12.345", 10, 2, "-1235/2"},
				   {"12.344999", 10, 2, "1234/2"},
				   {"1", 10, 2, "100/2"},
				   {"99.995", 4, 2, "false"},
				   {"99.994", 4, 2, "9999/2"},
				   {"100", 2, 0, "false"},
				   {"0.5", 1, 0, "1/0"},
				   {"-0.5", 1, 0, "-1/0"},
				   {"0.49", 1, 0, "0/0"},
				   {"123456789012345678", 18, 18, "false"},
				   {"0", 18, 18, "0/18"}};
	double d;
	float f;
	int64_t days;

	for (const auto &c : integers)
		is(int64_of(c.text), c.result, std::string("integer ") + c.text);
	for (const auto &c : decimals)
		is(decimal_of(c.text), c.result, std::string("decimal ") + c.text);
	for (const auto &c : typmods)
	{
		SeDecimal value;
		bool fits;

		se_scalar_decimal(c.text, (int) strlen(c.text), &value);
		fits = se_decimal_apply_typmod(&value, c.precision, c.scale);
		is(fits ? std::to_string(value.mantissa) + "/" + std::to_string(value.scale) : "false",
		   c.result, std::string("typmod of ") + c.text);
	}

	/* every way through the float conversion rounds as strtod */
	srand(1);
	bool same = true;
	bool same_single = true;

	for (int i = 0; i < 300000; i++)
	{
		char text[64];
		float single;

		switch (i % 3)
		{
			case 0:
				snprintf(text, sizeof(text), "%d.%de%d", rand() % 1000, rand(), rand() % 60 - 30);
				break;
			case 1:
				snprintf(text, sizeof(text), "%d%d%d.%d", rand() % 9 + 1, rand(), rand(), rand());
				break;
			default:
				snprintf(text, sizeof(text), "-%d.%02d", rand() % 100000, rand() % 100);
				break;
		}
		single = strtof(text, NULL);
		same = same && se_scalar_float64(text, (int) strlen(text), &d) == SE_SCALAR_OK &&
			d == strtod(text, NULL);
		if (!std::isinf(single) && single != 0)
			same_single = same_single &&
				se_scalar_float32(text, (int) strlen(text), &f) == SE_SCALAR_OK && f == single;
	}
	ok(same, "doubles are rounded correctly");
	ok(same_single, "floats are rounded correctly");
	ok(se_scalar_float64("1e400", 5, &d) == SE_SCALAR_RANGE &&
		   se_scalar_float64("1e-400", 6, &d) == SE_SCALAR_RANGE &&
		   se_scalar_float32("1e39", 4, &f) == SE_SCALAR_RANGE,
	   "floats out of range");
	ok(se_scalar_float64("-0.0", 4, &d) == SE_SCALAR_OK && d == 0 && std::signbit(d),
	   "negative zero");

	is(epoch_of("946684800", 0), "0", "epoch of seconds");
	is(epoch_of("946684800123", 3), "123000", "epoch of milliseconds");
	is(epoch_of("946684800123456", 6), "123456", "epoch of microseconds");
	is(epoch_of("946684800.1234565", 0), "123457", "half a microsecond rounds away from zero");
	is(epoch_of("946684800.12345649999999999999999999", 0), "123456", "a little less does not");
	is(epoch_of("946684800.12345650000000000000000001", 0), "123457", "more digits than fit");
	is(epoch_of("9.466848e8", 0), "0", "epoch with an exponent");
	is(epoch_of("-0.0000005", 0), "-946684800000001", "before the epoch");
	is(epoch_of("1e-30", 0), "-946684800000000", "tiny");
	is(epoch_of("1e30", 0), "range", "epoch out of range");
	is(epoch_of("99999999999999999999999", 6), "range", "epoch of many digits");
	is(epoch_of("x", 0), "other", "no number");

	is(time_of("2000-01-01T00:00:00Z"), "0", "ISO time");
	is(time_of("2000-01-01 00:00"), "0", "ISO time without seconds");
	is(time_of("2000-01-01"), "0", "ISO date as time");
	is(time_of("2000-01-01T00:00:00.5+01:30"), "-5399500000", "ISO time with a zone");
	is(time_of("2000-01-01T00:00:00.5+01:30", false), "500000", "zone ignored");
	is(time_of("1999-12-31T23:59:59.9999996Z"), "0", "fraction carries");
	is(time_of("0001-01-01T00:00:00-0030"), "-63082279800000000", "year one");
	is(time_of("2024-02-29T00:00:00Z"), "762480000000000", "leap day");
	for (const char *text : {"2023-02-29T00:00:00Z",
							 "1900-02-29",
							 "2024-13-01",
							 "2024-00-01",
							 "2024-01-00",
							 "2024-01-32",
							 "0000-01-01",
							 "2024-01-01T24:00:00",
							 "2024-01-01T00:60:00",
							 "2024-01-01T00:00:60",
							 "2024-01-01T00:00:00.",
							 "2024-01-01T",
							 "2024-01-01T00",
							 "2024-01-01T00:00:00z",
							 "2024-01-01T00:00:00+1",
							 "2024-01-01T00:00:00+16:00",
							 "2024-01-01T00:00:00+01:60",
							 "2024-1-1",
							 "20240101",
							 "infinity",
							 "",
							 "2024-01-01T00:00:00 Z"})
		is(time_of(text), "other", std::string("left to the input function: ") + text);
	ok(se_scalar_date("2000-03-01", 10, &days) == SE_SCALAR_OK && days == 60 &&
		   se_scalar_date("1999-12-31", 10, &days) == SE_SCALAR_OK && days == -1 &&
		   se_scalar_date("9999-12-31", 10, &days) == SE_SCALAR_OK && days == 2921939,
	   "dates");
}

/*
 * After records that it resembles a record is read as by a scanner that remembers
 * nothing, since it wants the whole record, too: each change of a byte, each
 * byte left out or put in is tried at each place.
 */
static void
test_layouts()
{
	static const std::vector<std::string> paths = {"a", "$.user.id", "long member name",
												   "$.user.deep.x", "end"};
	static const char *const layouts[] = {
		"{\"a\":1,\"user\":{\"id\":12.5,\"deep\":{\"x\":\"y\"}},\"long member name\":null,\"end\":-0.5}",
		"{\"q\":\"\",\"user\":{\"deep\":{\"x\":true,\"z\":10},\"id\":false},\"a\":\"é\",\"seventeen letters\":0}",
		"{ \"a\" : 1 , \"user\": {\"id\":2} }",
		"{\"a\":1,\"user\":{\"id\":1},\"user\":{\"deep\":{\"x\":2}},\"a\":3}",
		"{\"end\":[1,2],\"a\":12345678}"};
	static const std::string bytes = "{}[]:,\"\\ \n0.19-etfnxa\xc3";

	for (const char *layout : layouts)
	{
		std::string base = layout;
		std::vector<std::string> texts;
		std::vector<std::string> whole = paths;
		Scanner after(paths);
		int differing = 0;

		whole.push_back("$");
		Scanner alone(whole);
		alone.slots.pop_back();

		for (size_t at = 0; at <= base.size(); at++)
		{
			if (at < base.size())
				texts.push_back(base.substr(0, at) + base.substr(at + 1));
			texts.push_back(base.substr(0, at));
			for (char byte : bytes)
			{
				texts.push_back(base.substr(0, at) + byte + base.substr(at));
				if (at < base.size())
					texts.push_back(base.substr(0, at) + byte + base.substr(at + 1));
			}
		}

		/* first those that can be read many at once, then with those that cannot */
		for (bool all : {false, true})
		{
			std::vector<std::string> batch(10, base);
			std::vector<std::string> wanted(10, alone.one(base));

			for (size_t i = 0; i < texts.size(); i++)
			{
				std::string one = alone.one(texts[i]);
				int error = alone.status[0].error;

				if (all || (error != SE_JSON_UTF8 && error != SE_JSON_CONTROL &&
							error != SE_JSON_UNTERMINATED && error != SE_JSON_EMPTY))
				{
					batch.push_back(texts[i]);
					wanted.push_back(one);

					/* good ones between them keep the layout in mind */
					batch.push_back(base);
					wanted.push_back(wanted[0]);
				}
				if (batch.size() < 1000 && i + 1 < texts.size())
					continue;
				after.run(batch);
				for (size_t j = 0; j < batch.size(); j++)
				{
					if (after.row((int) j) != wanted[j] && differing++ == 0)
						is(after.row((int) j), wanted[j], batch[j]);
				}
				batch.resize(10);
				wanted.resize(10);
			}
		}
		ok(differing == 0, std::to_string(texts.size()) + " records that resemble " + base);
	}
}

int
main()
{
	test_values();
	test_errors();
	test_depth();
	test_truncation();
	test_mutation();
	test_batches();
	test_paths();
	test_scalars();
	test_layouts();
	printf("1..%d\n", tests);
	return failures != 0;
}
