/*
 * column_list.c
 *	  create_stream's column list -> the column list of CREATE FOREIGN TABLE.
 *
 * NOTES
 *	  The list is what CREATE TABLE takes, plus PATH '<json path>' and EPOCH
 *	  '<unit>' after the type.  Postgres's own scanner cuts it into tokens, so
 *	  quoting and comments are its own; we only move the two clauses into OPTIONS
 *	  (...), which the grammar wants right behind the type, and leave the parsing
 *	  to the server's grammar.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "parser/scanner.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/formatting.h"

#include "compat/compat.h"
#include "ddl.h"

typedef struct Token
{
	int			code;
	int			start;
	int			end;
	char	   *string;			/* of a string constant or a quoted name, else NULL */
} Token;

static const char *const constraint_words[] = {
	"constraint", "not", "null", "check", "default", "generated", "collate", "options",
	"primary", "unique", "references"
};

static bool
token_is(const char *source, const Token *token, const char *word)
{
	int			length = token->end - token->start;

	return length == (int) strlen(word) && pg_strncasecmp(source + token->start, word, length) == 0;
}

static Token *
scan(const char *source, int *ntokens)
{
	core_yy_extra_type extra;
	core_yyscan_t scanner;
	core_YYSTYPE value;
	YYLTYPE		location;
	int			capacity = 64;
	Token	   *tokens = palloc(sizeof(Token) * capacity);
	int			n = 0;
	int			code;

	scanner = scanner_init(source, &extra, &ScanKeywords, ScanKeywordTokens);
	while ((code = core_yylex(&value, &location, scanner)) != 0)
	{
		if (n > 0)
			tokens[n - 1].end = location;
		if (n == capacity)
			tokens = repalloc(tokens, sizeof(Token) * (capacity *= 2));
		tokens[n].code = code;
		tokens[n].start = location;
		tokens[n].string = code == SE_TOKEN_SCONST || source[location] == '"' ?
			pstrdup(value.str) : NULL;
		n++;
	}
	if (n > 0)
		tokens[n - 1].end = strlen(source);
	scanner_finish(scanner);

	/* cut white space; comments stay */
	for (int i = 0; i < n; i++)
		while (tokens[i].end > tokens[i].start && scanner_isspace(source[tokens[i].end - 1]))
			tokens[i].end--;
	*ntokens = n;
	return tokens;
}

static void
syntax_error(const char *source, int location, const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("%s in the column list", message),
			 internalerrquery(source),
			 internalerrposition(pg_mbstrlen_with_len(source, location) + 1)));
}

/*
 * A token with the comments behind it.  One that lasts to the end of its line must
 * not hide what comes next.
 */
static void
append_token(StringInfo out, const char *source, const Token *token)
{
	int			length = token->end - token->start;

	appendBinaryStringInfo(out, source + token->start, length);
	for (int i = 1; i < length; i++)
		if (source[token->start + i - 1] == '-' && source[token->start + i] == '-')
		{
			appendStringInfoChar(out, '\n');
			break;
		}
}

/* One column: tokens[first..last]. */
static void
translate_column(StringInfo out, const char *source, const Token *tokens, int first, int last,
				 List **names)
{
	StringInfoData options;
	int			insert_at = -1; /* token before which OPTIONS goes */
	int			depth = 0;
	bool	   *drop = palloc0(sizeof(bool) * (last - first + 1));

	initStringInfo(&options);

	/* a table constraint is passed on as it is */
	if (token_is(source, &tokens[first], "constraint") || token_is(source, &tokens[first], "check"))
	{
		for (int i = first; i <= last; i++)
		{
			append_token(out, source, &tokens[i]);
			if (i < last && tokens[i + 1].start > tokens[i].end)
				appendStringInfoChar(out, ' ');
		}
		return;
	}

	if (last > first)
	{
		char	   *name = tokens[first].string;

		if (name == NULL)
			name = downcase_identifier(source + tokens[first].start,
									   tokens[first].end - tokens[first].start, false, false);
		*names = lappend(*names, name);
	}

	for (int i = first + 1; i <= last; i++)
	{
		const Token *token = &tokens[i];

		if (token->code == '(' || token->code == '[')
			depth++;
		else if (token->code == ')' || token->code == ']')
			depth--;
		if (depth != 0)
			continue;
		for (int w = 0; insert_at < 0 && w < lengthof(constraint_words); w++)
			if (token_is(source, token, constraint_words[w]))
				insert_at = i;
		/* a type of a schema, or a constraint, may have such a name */
		if (i > first + 1 && tokens[i - 1].code != '.' &&
			!token_is(source, &tokens[i - 1], "constraint") &&
			(token_is(source, token, "path") || token_is(source, token, "epoch")))
		{
			const char *option = token_is(source, token, "path") ? "path" : "epoch";

			if (i == last || tokens[i + 1].code != SE_TOKEN_SCONST)
				syntax_error(source, i == last ? token->start : tokens[i + 1].start,
							 psprintf("%s wants a string constant",
									  asc_toupper(option, strlen(option))));
			if (options.len > 0)
				appendStringInfoString(&options, ", ");
			appendStringInfo(&options, "%s %s", option,
							 quote_literal_cstr(tokens[i + 1].string));
			drop[i - first] = drop[i + 1 - first] = true;
			if (insert_at < 0)
				insert_at = i;
			i++;
		}
	}
	if (insert_at >= 0 && options.len > 0 && token_is(source, &tokens[insert_at], "options"))
		syntax_error(source, tokens[insert_at].start, "OPTIONS cannot stand beside PATH or EPOCH");

	for (int i = first; i <= last; i++)
	{
		if (i == insert_at && options.len > 0)
			appendStringInfo(out, "OPTIONS (%s) ", options.data);
		if (drop[i - first])
			continue;
		append_token(out, source, &tokens[i]);
		/* keep tokens that touched together, such as "1.5" or "::" */
		if (i < last && tokens[i + 1].start > tokens[i].end)
			appendStringInfoChar(out, ' ');
	}
}

static const struct
{
	const char *name;
	const char *type;
}			metadata_columns[] = {
	{"partition", "integer"},
	{"offset", "bigint"},
	{"timestamp", "timestamp with time zone"},
	{"processing_time", "timestamp with time zone"},
	{"key", "bytea"},
	{"headers", "jsonb"},
	{"topic", "text"}
};

char *
se_translate_columns(const char *columns, List *include)
{
	StringInfoData body;
	StringInfoData out;
	List	   *names = NIL;
	ListCell   *cell;
	int			ntokens;
	Token	   *tokens = scan(columns, &ntokens);
	int			depth = 0;
	int			first = 0;

	if (ntokens == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a stream needs at least one column")));

	initStringInfo(&body);
	for (int i = 0; i <= ntokens; i++)
	{
		if (i < ntokens && (tokens[i].code == '(' || tokens[i].code == '['))
			depth++;
		else if (i < ntokens && (tokens[i].code == ')' || tokens[i].code == ']'))
		{
			if (--depth < 0)
				syntax_error(columns, tokens[i].start, "unbalanced parenthesis");
		}
		if (i < ntokens && (tokens[i].code != ',' || depth > 0))
			continue;
		if (i == first)
			syntax_error(columns, i < ntokens ? tokens[i].start : (int) strlen(columns),
						 "a column is missing");
		if (body.len > 0)
			appendStringInfoString(&body, ",\n\t");
		translate_column(&body, columns, tokens, first, i - 1, &names);
		first = i + 1;
	}
	if (depth != 0)
		syntax_error(columns, (int) strlen(columns), "unbalanced parenthesis");

	initStringInfo(&out);
	foreach(cell, include)
	{
		const char *wanted = lfirst(cell);
		const char *type = NULL;
		char	   *name = psprintf("_%s", wanted);
		bool		declared = false;
		ListCell   *other;

		for (int i = 0; i < lengthof(metadata_columns); i++)
			if (strcmp(metadata_columns[i].name, wanted) == 0)
				type = metadata_columns[i].type;
		if (type == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there is no metadata column \"%s\"", wanted),
					 errhint("The choice is partition, offset, timestamp, processing_time, key, headers and topic.")));
		foreach(other, names)
			if (strcmp(lfirst(other), name) == 0)
				declared = true;
		if (declared)
			continue;
		names = lappend(names, name);
		appendStringInfo(&out, "%s %s,\n\t", quote_identifier(name), type);
	}
	appendStringInfoString(&out, body.data);
	return out.data;
}
