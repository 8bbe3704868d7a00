/*
 * path_fuzz.cpp
 *	  libFuzzer target of the parser of PATH options (json_path.c).
 *
 * NOTES
 *	  An input is a list of paths, one a line.  A path that is refused must come
 *	  with a message and a position within it; from those that are taken, each
 *	  step must be found again by its name or number.
 */
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "source/json_path.h"

extern "C" int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	std::string input((const char *) data, size);
	std::vector<std::string> lines;
	size_t		from = 0;

	for (;;)
	{
		size_t		to = input.find('\n', from);

		/* a C string ends at a zero byte */
		lines.push_back(std::string(input.substr(from, to - from).c_str()));
		if (to == std::string::npos || lines.size() == 16)
			break;
		from = to + 1;
	}

	SeJsonTrie	trie;

	if (!se_trie_init(&trie))
		return 0;
	for (const std::string &path : lines)
	{
		const char *message = nullptr;
		int			position = -1;
		int			slot = se_trie_add_path(&trie, path.c_str(), &message, &position);

		if (slot < 0 ? (message == nullptr || message[0] == '\0' || position < 0 ||
						position > (int) path.size())
			: slot >= trie.nslots)
			abort();
	}
	if (se_trie_compile(&trie))
	{
		/* every node is reached by the names that lead to it */
		for (int32_t n = 0; n < trie.nnodes; n++)
		{
			const SeJsonNode *node = &trie.nodes[n];

			if (node->slot >= trie.nslots)
				abort();
			for (int32_t m = 0; m < node->nmembers; m++)
			{
				std::string name(node->members[m].name, node->members[m].len);

				name.append(64, '\0');
				if (se_trie_member(&trie, node, name.data(), node->members[m].len) !=
					&trie.nodes[node->members[m].node])
					abort();
			}
			for (int32_t e = 0; e < node->nelements; e++)
				if (se_trie_element(&trie, node, node->elements[e].index) !=
					&trie.nodes[node->elements[e].node])
					abort();
		}
	}
	se_trie_free(&trie);
	return 0;
}
