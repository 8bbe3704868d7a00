/*
 * json_fuzz.cpp
 *	  Fuzzing of the JSON scanner and the scalar conversions (libFuzzer).
 *
 * NOTES
 *	  The input is cut at the byte 0x1e into records.  What must hold:
 *	  - a record is judged alike alone and among the others, and, by a scanner that
 *	    remembers the layouts of records, after others that resemble it,
 *	  - it is good if and only if a plain reader of JSON says so, and the value
 *	    found at a path is the one that the reader finds,
 *	  - conversions that overlap agree.
 */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "source/json_core.h"
#include "source/json_scalar.h"

#include "../unit/json_reference.h"

static void
require(bool good, const char *what)
{
	if (!good)
	{
		fprintf(stderr, "violated: %s\n", what);
		abort();
	}
}

/* The value as it was written. */
static std::string
written(const SeJsonValue &value)
{
	if (value.kind == SE_JSON_STRING)
		return std::string(value.data - 1, value.len + 2);
	return std::string(value.data, value.len);
}

/* The same, with what else is known of it. */
static std::string
shown(const SeJsonValue *value)
{
	if (value->kind == SE_JSON_MISSING)
		return "missing";
	return std::to_string(value->kind) + (value->escaped ? "e" : "p") + written(*value);
}

static void
convert(const SeJsonValue &value)
{
	int64_t integer = 0;
	int64_t other;
	double d = 0;
	float f;
	SeDecimal decimal = {0, 0};
	SeScalarStatus is_integer = se_scalar_int64(value.data, value.len, &integer);
	SeScalarStatus is_double = se_scalar_float64(value.data, value.len, &d);
	SeScalarStatus is_decimal = se_scalar_decimal(value.data, value.len, &decimal);

	(void) se_scalar_float32(value.data, value.len, &f);
	for (int digits = 0; digits <= 6; digits += 3)
		(void) se_scalar_epoch(value.data, value.len, digits, &other);
	if (se_scalar_timestamp(value.data, value.len, true, &other) == SE_SCALAR_OK)
		require(value.kind == SE_JSON_STRING, "a time is no number");
	(void) se_scalar_date(value.data, value.len, &other);

	if (value.kind != SE_JSON_NUMBER)
		return;
	require(is_integer != SE_SCALAR_OTHER && is_double != SE_SCALAR_OTHER, "a number is decided");
	if (is_double == SE_SCALAR_OK)
		require(d == strtod(std::string(value.data, value.len).c_str(), NULL),
				"a double is rounded correctly");
	if (is_decimal == SE_SCALAR_OK)
	{
		int64_t unit = 1;

		for (int i = 0; i < decimal.scale; i++)
			unit *= 10;
		require(is_integer == (decimal.mantissa % unit == 0 ? SE_SCALAR_OK : SE_SCALAR_FRACTION),
				"integral alike");
		if (is_integer == SE_SCALAR_OK)
			require(integer == decimal.mantissa / unit, "the same integer");

		/* rounding to what it has changes nothing */
		SeDecimal same = decimal;

		if (se_decimal_apply_typmod(&same, 18, decimal.scale))
			require(same.mantissa == decimal.mantissa && same.scale == decimal.scale, "typmod");
		for (int scale = 0; scale <= 18; scale += 3)
		{
			same = decimal;
			if (se_decimal_apply_typmod(&same, 18, scale))
				require(same.scale == scale, "typmod's scale");
		}
	}
}

extern "C" int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static SeJson *json = NULL;
	static SeJson *remembering = NULL;
	static int slots[5];
	std::vector<std::string> texts(1);
	std::vector<std::vector<std::string>> found;
	std::vector<SeRecord> records;
	static SeJsonStatus status[SE_BATCH_MAX];
	static SeJsonStatus alone[SE_BATCH_MAX];

	if (json == NULL)
	{
		static const char *const paths[] = {"$.a", "$.a.b", "$.a[1]", "$['long member name'].x",
											"$"};
		const char *message;
		int position;

		json = se_json_create();
		for (int i = 0; i < 5; i++)
			slots[i] = se_json_add_path(json, paths[i], &message, &position);

		/* whoever wants the whole record has no use for its layout */
		remembering = se_json_create();
		for (int i = 0; i < 4; i++)
			require(se_json_add_path(remembering, paths[i], &message, &position) == slots[i],
					"the same slots");
	}

	for (size_t i = 0; i < size; i++)
	{
		if (data[i] == 0x1e && texts.size() < SE_BATCH_MAX)
			texts.push_back("");
		else
			texts.back() += (char) data[i];
	}

	/* exactly as long as it is, so that reading beyond is seen */
	std::vector<std::vector<char>> bytes;

	for (const std::string &text : texts)
	{
		SeRecord record = {};

		bytes.emplace_back(text.begin(), text.end());
		record.payload = bytes.back().empty() ? "" : bytes.back().data();
		record.payload_len = (int32_t) text.size();
		records.push_back(record);
	}

	for (size_t i = 0; i < records.size(); i++)
	{
		JsonReference reference(texts[i], "a");
		const SeJsonValue *value;

		require(se_json_run(json, &records[i], 1, &alone[i]), "memory");
		found.emplace_back();
		for (int slot = 0; slot < 4 && alone[i].error == SE_JSON_OK; slot++)
			found.back().push_back(shown(se_json_values(json, slots[slot])));
		require((alone[i].error == SE_JSON_OK) == reference.valid, "valid alike");
		if (!reference.valid)
		{
			require(alone[i].position >= 0 && alone[i].position <= records[i].payload_len,
					"position");
			continue;
		}
		value = se_json_values(json, slots[0]);
		require((value->kind != SE_JSON_MISSING) == reference.found, "found alike");
		if (reference.found)
			require(written(*value) == reference.raw, "the same value");
		for (int slot : slots)
		{
			value = se_json_values(json, slot);
			if (value->kind == SE_JSON_NUMBER || value->kind == SE_JSON_STRING)
				convert(*value);
			if (value->kind == SE_JSON_STRING)
			{
				std::vector<char> plain(value->len);
				SeJsonError error;
				int len = se_json_unescape(value->data, value->len, plain.data(), &error);

				require(len <= value->len &&
							(len >= 0 || error == SE_JSON_NUL || error == SE_JSON_SURROGATE),
						"unescape");
			}
		}
	}

	require(se_json_run(json, records.data(), (int) records.size(), status), "memory");
	for (size_t i = 0; i < records.size(); i++)
		require(status[i].error == alone[i].error &&
					(status[i].error == SE_JSON_OK || status[i].position == alone[i].position),
				"alike among others");

	/* each after many of each other, so that each one's layout is remembered once */
	for (size_t i = 0; i < records.size() && i < 8; i++)
	{
		std::vector<SeRecord> repeated;
		std::vector<size_t> number;

		for (int n = 0; n < 12; n++)
			repeated.push_back(records[i]), number.push_back(i);
		for (size_t j = 0; j < records.size(); j++)
			repeated.push_back(records[j]), number.push_back(j);
		repeated.resize(std::min<size_t>(repeated.size(), SE_BATCH_MAX));
		for (int n = 0; n < 2; n++)
			require(se_json_run(remembering, repeated.data(), (int) repeated.size(), status),
					"memory");
		for (size_t j = 0; j < repeated.size(); j++)
		{
			const SeJsonStatus &first = alone[number[j]];

			require(status[j].error == first.error &&
						(first.error == SE_JSON_OK || status[j].position == first.position),
					"alike after others");
			for (int slot = 0; slot < 4 && first.error == SE_JSON_OK; slot++)
				require(shown(&se_json_values(remembering, slots[slot])[j]) ==
							found[number[j]][slot],
						"the same value after others");
		}
	}
	return 0;
}
