/*
 * json_reference.h
 *	  A slow, plain reader of JSON (RFC 8259) to compare the scanner with.
 *
 * NOTES
 *	  Recursive descent over bytes, with no code in common with what it checks.
 *	  It validates a record as the scanner should, and finds the value of one
 *	  member of the top object (the last of that name).
 */
#ifndef JSON_REFERENCE_H
#define JSON_REFERENCE_H

#include <cctype>
#include <cstring>
#include <string>

class JsonReference
{
public:
	JsonReference(const std::string &text, const std::string &member) : text(text), member(member)
	{
		space();
		valid = at < text.size() && text[at] == '{' && utf8() && value(0);
		space();
		valid = valid && at == text.size();
	}

	bool valid;
	bool found = false;
	std::string raw; /* the member's value as it was written */

private:
	const std::string &text;
	const std::string member;
	size_t at = 0;

	int peek() const { return at < text.size() ? (unsigned char) text[at] : -1; }

	void space()
	{
		while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r')
			at++;
	}

	bool utf8() const
	{
		for (size_t i = 0; i < text.size();)
		{
			unsigned c = (unsigned char) text[i];
			int more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : -1;
			static const unsigned least[] = {0, 0x80, 0x800, 0x10000};
			unsigned code;

			if (more < 0 || i + more >= text.size())
				return false;
			code = more == 0 ? c : c & (0x3F >> more);
			for (int j = 1; j <= more; j++)
			{
				unsigned next = (unsigned char) text[i + j];

				if (next >> 6 != 2)
					return false;
				code = code << 6 | (next & 0x3F);
			}
			if (code < least[more] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
				return false;
			i += more + 1;
		}
		return true;
	}

	/* Reads a string; *plain is its text as long as it has no escapes but \uXXXX of ASCII. */
	bool string(std::string *plain)
	{
		if (peek() != '"')
			return false;
		at++;
		while (peek() != '"')
		{
			int c = peek();

			if (c < 0x20)
				return false;
			at++;
			if (c != '\\')
			{
				*plain += (char) c;
				continue;
			}
			c = peek();
			if (c < 0 || strchr("\"\\/bfnrtu", c) == NULL || c == 0)
				return false;
			at++;
			if (c == 'u')
			{
				unsigned code = 0;

				for (int i = 0; i < 4; i++)
				{
					int digit = peek();

					if (digit < 0 || !isxdigit(digit))
						return false;
					code = code * 16 + (digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
					at++;
				}
				/* a name that is longer than any that is looked for */
				*plain +=
					code > 0 && code < 0x80 ? std::string(1, (char) code) : std::string(9, '?');
			}
			else
			{
				static const char from[] = "\"\\/bfnrt";
				static const char to[] = "\"\\/\b\f\n\r\t";

				*plain += to[strchr(from, c) - from];
			}
		}
		at++;
		return true;
	}

	bool digits()
	{
		size_t start = at;

		while (peek() >= '0' && peek() <= '9')
			at++;
		return at > start;
	}

	bool number()
	{
		if (peek() == '-')
			at++;
		if (peek() == '0')
			at++;
		else if (!digits())
			return false;
		if (peek() == '.')
		{
			at++;
			if (!digits())
				return false;
		}
		if (peek() == 'e' || peek() == 'E')
		{
			at++;
			if (peek() == '+' || peek() == '-')
				at++;
			if (!digits())
				return false;
		}
		return true;
	}

	bool word(const char *word)
	{
		if (text.compare(at, strlen(word), word) != 0)
			return false;
		at += strlen(word);
		return true;
	}

	bool value(int depth)
	{
		if (depth >= 1000 && (peek() == '{' || peek() == '['))
			return false;
		if (peek() == '{')
		{
			at++;
			space();
			if (peek() == '}')
			{
				at++;
				return true;
			}
			for (;;)
			{
				std::string name;
				size_t start;

				space();
				if (!string(&name))
					return false;
				space();
				if (peek() != ':')
					return false;
				at++;
				space();
				start = at;
				if (!value(depth + 1))
					return false;
				if (depth == 0 && name == member)
				{
					found = true;
					raw = text.substr(start, at - start);
				}
				space();
				if (peek() == '}')
				{
					at++;
					return true;
				}
				if (peek() != ',')
					return false;
				at++;
			}
		}
		if (peek() == '[')
		{
			at++;
			space();
			if (peek() == ']')
			{
				at++;
				return true;
			}
			for (;;)
			{
				space();
				if (!value(depth + 1))
					return false;
				space();
				if (peek() == ']')
				{
					at++;
					return true;
				}
				if (peek() != ',')
					return false;
				at++;
			}
		}
		if (peek() == '"')
		{
			std::string ignored;

			return string(&ignored);
		}
		if (peek() == 't')
			return word("true");
		if (peek() == 'f')
			return word("false");
		if (peek() == 'n')
			return word("null");
		return number();
	}
};

#endif /* JSON_REFERENCE_H */
